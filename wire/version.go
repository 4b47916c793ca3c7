package wire

import "time"

// The oldest and newest version of the EC2 API that is spoken, those of Eucalyptus.
// One set of replies serves them all: a client skips the elements that are newer
// than itself.
const (
	OldestVersion = "2006-06-26"
	NewestVersion = "2016-11-15"
)

// Namespaces of the replies of IAM and STS, whose versions never changed.
const (
	IAMNamespace = "https://iam.amazonaws.com/doc/2010-05-08/"
	STSNamespace = "https://sts.amazonaws.com/doc/2011-06-15/"
)

// EC2Namespace is the namespace of a reply in that version of the API.
func EC2Namespace(version string) string {
	return "http://ec2.amazonaws.com/doc/" + version + "/"
}

// CheckVersion tells whether the Version parameter of an EC2 request is one that
// we answer in: a date from OldestVersion to NewestVersion. Dates sort as text.
func CheckVersion(version string) error {
	if version == "" {
		return MissingParameter("Version")
	}
	if _, err := time.Parse(time.DateOnly, version); err != nil {
		return InvalidParameterValue("Version", version, "Expecting the date of an EC2 API version, such as %s.", NewestVersion)
	}
	if version < OldestVersion || version > NewestVersion {
		return Errorf("NoSuchVersion", "The version %s of the EC2 API is not served; use one from %s to %s", version, OldestVersion, NewestVersion)
	}
	return nil
}
