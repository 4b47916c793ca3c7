// Package test holds the black-box suites: the built program (MALLEE), real
// QEMU, and clients that others wrote, such as Amazon's SDKs and command line.
//
// Most suites share one cloud (world_test.go), because guests are emulated where
// there is no KVM, and a boot takes seconds. What a suite changes in it, it puts
// back. Nothing sleeps: everything is polled for, under a deadline.
//
//	firstlight_test.go   instances, seen from inside and outside
//	restart_test.go      the program, QEMU and the host's end, at bad moments
//	bundles_test.go      what is registered and launched, and what is refused
//	endure_test.go       what a guest was told is written, after kills in the middle of everything
//	hardship_test.go     the same with a full disk, and with snapshots that are away or damaged
//	ceph_test.go         the same with volumes in Ceph (make ceph)
//	host_test.go         hosts without QEMU, with a broken one, with a full disk
//	clients_test.go      the AWS CLI, boto3, and Amazon's SDK for Go
//	requests_test.go     signatures, dry runs, client tokens, refusals
//	model_test.go        every name on the wire against Amazon's model
//	safety_test.go       what guests and others on the host get at
//	ordinary_test.go     an ordinary user's cloud, from up to destroy
package test
