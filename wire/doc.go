// Package wire speaks the query protocol of EC2, IAM and STS: a form comes in,
// a struct goes to the handler, a struct comes back, XML goes out.
//
//	POST / HTTP/1.1                          type in struct {
//	Action=RunInstances&Version=…                ImageID  string `wire:"ImageId,required"`
//	&ImageId=emi-12345678&MinCount=1    ──▶      MinCount int    `wire:"MinCount,required,min=1"`
//	&Placement.AvailabilityZone=one              …
//	&Tenancy=host                            }   and left over: Tenancy
//
// # Terms
//
//   - form: the parameters of one request, each name at most once;
//   - parameter: one name and value of the form, such as Filter.1.Value.2;
//   - list: parameters numbered from 1 without a gap, Name.1, Name.2 (EC2) or
//     Name.member.1 (IAM and STS);
//   - left over: a parameter that no field of the struct asked for. The
//     dispatcher refuses the request and names it: a parameter that we don't
//     support is never ignored in silence;
//   - reply: EC2 writes the members straight into <XResponse>; IAM and STS write
//     <XResult> inside of it and the request id behind.
//
// # The way of a request
//
// [ReadBody] reads the body, bounded, so that room sigv4 can hash the very bytes
// that [Parse] then takes apart. [CheckVersion] settles the reply's namespace,
// [Decode] fills the handler's input, and one of [WriteEC2], [WriteQuery],
// [WriteEC2Error] and [WriteQueryError] answers. Nothing is kept between requests.
//
// # What can go wrong
//
// Whatever a client sends ends in an [Error] with a code that EC2 documents and a
// message that names the parameter and its value. No input ends in status 500, and
// none makes work or memory grow faster than the bytes that were sent: names, depth,
// count and numbering are bounded before anything is allocated for them.
//
// A mistake in a tag is a mistake in the program, and panics at first use.
package wire
