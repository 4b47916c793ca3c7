// Package walrus is the object store's front: S3, spoken by the versitygw
// library over a folder of plain files, with Mallee's accounts in charge.
//
// Terms. A bucket is a folder under the store's folder, an object is a file in
// it, and what S3 knows of either beyond its bytes (ETag, checksums, ACL,
// content type) is an extended attribute of the same inode, so that one rename
// publishes all of an object at once. An account owns buckets; who holds which
// key is asked of an Identity at every request, so a key disabled there stops
// working with the next request here.
//
// A request's way through the room:
//
//	front's http.Server ──Handler──▶ hijack ─┐
//	own port ───────────Serve────────────────┴▶ library's server
//	    steer   not S3? back to the front; path prefix of Eucalyptus removed
//	    guard   names, sizes and ACLs that the library would choke on
//	    documents  settings of buckets that the library has no word for
//	    rights  what policies don't let the key's holder do, before the key is proven
//	    library signature, policy, XML; it decides by a policy made of all ACLs (policy.go)
//	    store   the library's POSIX backend, made durable
//
// Who writes what. Only store writes below the folder. An object is staged in
// the bucket's .sgwtmp, its bytes forced to the disk, its attributes set, then
// renamed into place, and then the file and every folder that had to change are
// forced to the disk before the answer leaves (see disk). So an acknowledged
// write survives power loss and an unacknowledged one is either whole or not
// there. What a crash leaves staged is swept when the store is opened.
//
// Beside the store's folder lie, in folders named after it, the older versions of
// objects (-versions, see versions.go) and what of a bucket's settings the library
// doesn't know (-documents, see documents.go). A bucket takes both along when it is
// deleted.
//
// Every hour, objects and unfinished uploads that lifecycle rules have expired are
// deleted (expiry.go). What comes with a key of the customer's own lies encrypted with
// it (customer.go); all else lies as it came, whatever the encryption's header says.
//
// What can go wrong. The library's POSIX backend works relative to the
// process's working directory: Open changes it, Close changes it back, and a
// second Open in the same process is refused in between. Everything else in the
// process must use absolute paths. A file system without user extended
// attributes (tmpfs before Linux 6.6, some network ones) is refused at Open.
// On ext4 all attributes of one inode share some 4 KiB, so a larger bucket
// policy or set of tags is refused with the library's "no space" error. A key
// cannot be both an object and the folder of other objects.
package walrus
