// Package sigv4 tells who sent a request: it verifies AWS's Signature Version 4 in
// its header and its presigned form, and signs requests for our own clients.
//
// # Terms
//
//   - access key: the public name of a secret, such as AKIAIOSFODNN7EXAMPLE;
//   - scope: date/region/service/aws4_request; the secret is narrowed down to it
//     before it signs, so a signature serves one day, region and service;
//   - claim: what a request says of its signature, before anybody believes it;
//   - canonical request: the request written down the one way on which both sides
//     agree (method, path, query, signed headers, hash of the body); its hash,
//     together with time and scope, is the string that is signed.
//
// # The way of a request
//
//	Authorization header ─┐
//	                      ├─▶ claim ─▶ scope, time, headers and body hold together?
//	X-Amz-… in the query ─┘              │
//	                                     ▼ lookup: access key → secret
//	                  canonical request ─▶ our signature = the claim's? ─▶ Identity
//
// Nothing is kept between requests. A signature is void fifteen minutes after it was
// made, a presigned one when its X-Amz-Expires has passed; within that time the same
// request may come again, for the reasons in docs/adr/0001-replay-window.md.
//
// # What can go wrong
//
// Errors are *wire.Error, for the client: MissingAuthenticationToken (no signature),
// IncompleteSignature (a claim that can't be read, or leaves out what must be signed),
// RequestExpired (a clock more than fifteen minutes off, or a presigned request past
// its end), SignatureDoesNotMatch and InvalidClientTokenId. EC2 has one code, AuthFailure,
// for an unknown access key and for a wrong signature, and the same work is done for
// both, so neither answer nor time tells which access keys exist. IAM and STS tell the
// two apart by their codes, as AWS's do.
//
// What the signature doesn't cover is not verified: a handler must not act on a header
// that isn't x-amz-*, Host or part of the body's framing.
package sigv4
