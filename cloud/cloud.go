// Package cloud holds the nouns: what a user of Mallee names when speaking of
// images, instances, reservations, keys and nodes.
//
// A noun is plain data, safe to copy, and knows no I/O. What a user calls the
// state of a thing is never stored: it is derived, by a pure function beside
// the noun, from two facts that have one writer each:
//
//	wish         what was asked for              written by the API (room ec2)
//	observation  what the node last saw          written from reports (room controller)
//
//	              RunInstances                 node: up
//	    (nothing) ───────────▶ pending ─────────────────────▶ running
//	                              │  TerminateInstances,          │
//	                              │  failure, guest's poweroff    │
//	                              ▼                               ▼
//	                        shutting-down ◀───────────────────────┘
//	                              │ node: gone, by a report young enough
//	                              ▼
//	                         terminated ── an hour ──▶ (forgotten)
//
// Ids are drawn at random among those that no record has. What was forgotten has
// none, so its id may come again, once in some four thousand million draws.
//
// Records are shared between readers without locks: treat what comes out of
// the state as immutable, copy before changing.
package cloud
