package euca

import "slices"

// bundleCommands make, move and take apart bundles, on this machine and in the
// object store.
func bundleCommands() []command {
	return slices.Concat(makingCommands(), fetchingCommands(), importCommands(), []command{
		{
			name: "bundle-vol", short: "Bundle a folder of files as a file system, or a block device as it is",
			options: slices.Concat(volumeOptions, signingOptions, machineOptions, secretOptions),
			run:     bundleVolume,
		},
	})
}

func makingCommands() []command {
	making := slices.Concat(imageOptions, signingOptions, machineOptions, secretOptions)
	uploading := slices.Concat(making, uploadOptions, []option{
		whole("max-pending-parts", "COUNT", "taken for euca2ools' sake: two parts are uploaded beside the bundling"),
	})
	return []command{
		{
			name: "bundle-image", short: "Bundle an image, to be uploaded into a cloud",
			options: making, run: bundleImage,
		},
		{
			name: "upload-bundle", short: "Upload a bundle that was made by euca-bundle-image",
			options: slices.Concat([]option{
				text("m,manifest", "FILE", "the bundle's manifest").required(),
				text("d,directory", "DIR", "where the parts are (default: beside the manifest)"),
				whole("part", "NUMBER", "begin with that part: those before it are there already (default 0)"),
				toggle("skipmanifest", "leave the manifest out"),
			}, uploadOptions),
			url: "s3", run: uploadBundle,
		},
		{
			name: "bundle-and-upload-image", short: "Bundle an image, and upload it while it is bundled",
			options: append(slices.Clone(uploading), toggle("preserve-bundle", "keep the bundle in -d's folder too")),
			url:     "s3", run: bundleAndUpload,
		},
		{
			name: "install-image", short: "Bundle, upload and register an image",
			options: slices.Concat([]option{
				text("n,name", "NAME", "name of the image").required(),
				text("description", "DESC", "what it is"),
				text("virtualization-type", "TYPE", "hvm or paravirtual").among("paravirtual", "hvm"),
				text("platform", "windows", "what runs in it").among("windows"),
				text("ec2-url", "URL", "endpoint of EC2; -U is the object store's"),
			}, uploading),
			url: "s3", run: installImage,
		},
	}
}

func fetchingCommands() []command {
	private := text("k,privatekey", "FILE", "key to decrypt the bundle by: its maker's, or the cloud's")
	return []command{
		{
			name: "download-bundle", short: "Download a bundle",
			options: append(slices.Clone(placeOptions),
				text("d,directory", "DIR", "where it goes; - is standard output, where its parts are written one after another (default: the current folder)")),
			url: "s3", run: downloadBundle,
		},
		{
			name: "unbundle", short: "Take a downloaded bundle apart: the image that it was made of",
			options: []option{
				text("m,manifest", "FILE", "the bundle's manifest").required(), private,
				text("s,source", "DIR", "where the parts are (default: the current folder, or else beside the manifest)"),
				text("d,destination", "DIR", "where the image goes (default: the current folder)"),
			},
			run: unbundle,
		},
		{
			name: "download-and-unbundle", short: "Download a bundle, and take it apart while it comes",
			options: append(slices.Clone(placeOptions), private,
				text("d,destination", "FILE|DIR", "where the image goes; - is standard output (default: the current folder)")),
			url: "s3", run: downloadAndUnbundle,
		},
		{
			name: "unbundle-stream", short: "Take a bundle's parts apart that come one after another, without its manifest",
			options: []option{
				text("i", "FILE", "where the parts are read (default: standard input)"),
				text("o", "FILE", "where the image goes (default: standard output)"),
				text("enc-key", "HEX", "key that the bundle is encrypted with").required(),
				text("enc-iv", "HEX", "initialization vector that it is encrypted with").required(),
				text("image-size", "BYTES", "size that the image has to have"),
				text("sha1-digest", "HEX", "digest of the image that its manifest tells"),
			},
			run: unbundleStream,
		},
		{
			name: "delete-bundle", short: "Delete an uploaded bundle",
			options: append(slices.Clone(placeOptions),
				toggle("delete-all-bundles", "delete all bundles that are there"),
				toggle("clear", "delete the bucket too, where nothing else is in it")),
			url: "s3", run: deleteBundle,
		},
	}
}

// imageOptions say what is bundled.
var imageOptions = []option{
	text("i,image", "FILE", "the image; - is standard input").required(),
	text("p,prefix", "NAME", "name of the bundle (default: the image's file name)"),
	text("d,destination", "DIR", "where the bundle goes (default: a new folder in $TMPDIR or /var/tmp)"),
	text("r,arch", "ARCH", "what the image runs on").required().among(architectures...),
	text("image-type", "TYPE", "machine, kernel or ramdisk (default machine)").among("machine", "kernel", "ramdisk"),
	text("image-size", "BYTES", "the image's size, which standard input needs told; 10g is 10 GiB"),
	toggle("batch", "taken for euca2ools' sake: nothing is ever asked"),
}

// architectures that manifests may name; a cloud need not run them all.
var architectures = []string{"i386", "x86_64", "armhf", "arm64", "ppc", "ppc64", "ppc64le"}

// signingOptions say for whom a bundle is.
var signingOptions = []option{
	text("k,privatekey", "FILE", "your key, which signs the bundle (default: the configured one, or else it isn't signed)"),
	text("c,cert", "FILE", "your certificate: who has its key can unbundle (default: the configured one)"),
	text("ec2cert", "FILE", "the cloud's certificate (default: the configured one)"),
	text("u,user", "ACCOUNT", "your account's number (default: the configured one)"),
}

// machineOptions are written into the manifest.
var machineOptions = []option{
	text("kernel", "KERNEL", "kernel image of a machine image; true says that this is one"),
	text("ramdisk", "RAMDISK", "ramdisk image of a machine image; true says that this is one"),
	text("B,block-device-mappings", "VIRTUAL=DEVICE,...", "devices of a machine image, as ephemeral0=sdb"),
	text("productcodes", "CODE,...", "product codes of a machine image"),
}

// secretOptions make the same bundle again.
var secretOptions = []option{
	text("part-size", "BYTES", "size of a part (default 10m)"),
	text("enc-key", "HEX", "key to encrypt the bundle with (default: random)"),
	text("enc-iv", "HEX", "initialization vector to encrypt it with (default: random)"),
}

// uploadOptions say where to.
var uploadOptions = []option{
	text("b,bucket", "BUCKET[/PREFIX]", "where the bundle goes; the bucket is made if there is none").required(),
	text("acl", "ACL", "canned ACL of the bundle (default aws-exec-read)").among("public-read", "aws-exec-read", "ec2-bundle-read"),
	text("location", "LOCATION", "location of the bucket, if it is made"),
	text("upload-policy", "POLICY", "policy by which to upload without a secret key, in JSON"),
	text("upload-policy-file", "FILE", "file that holds the policy"),
	text("upload-policy-signature", "SIGNATURE", "the policy's signature"),
	toggle("retry", "try what fails up to 5 times more"),
}

// placeOptions say where a bundle is.
var placeOptions = []option{
	text("b,bucket", "BUCKET[/PREFIX]", "where the bundle is").required(),
	text("m,manifest", "NAME", "name of its manifest"),
	text("p,prefix", "NAME", "the bundle's name: its manifest's without .manifest.xml"),
	text("local-manifest", "FILE", "manifest on this machine, instead of the one that is there"),
}
