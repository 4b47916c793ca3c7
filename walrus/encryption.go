package walrus

import (
	"encoding/xml"
	"net/http"

	"github.com/versity/versitygw/auth"
)

// encryptionRules is a bucket's default encryption.
type encryptionRules struct {
	XMLName xml.Name         `xml:"ServerSideEncryptionConfiguration"`
	Space   string           `xml:"xmlns,attr,omitempty"`
	Rules   []encryptionRule `xml:"Rule"`
}

type encryptionRule struct {
	Apply *struct {
		Algorithm string `xml:"SSEAlgorithm"`
		Key       string `xml:"KMSMasterKeyID,omitempty"`
	} `xml:"ApplyServerSideEncryptionByDefault"`
	BucketKey bool `xml:"BucketKeyEnabled"`
}

var encryption = document{
	name: "encryption", get: auth.GetEncryptionConfigurationAction, put: auth.PutEncryptionConfigurationAction,
	blank: func() any { return &encryptionRules{} },
	check: func(_ *desk, value any) error { return checkEncryption(value.(*encryptionRules)) },
	initial: func() (any, error) {
		rule := encryptionRule{Apply: &struct {
			Algorithm string `xml:"SSEAlgorithm"`
			Key       string `xml:"KMSMasterKeyID,omitempty"`
		}{Algorithm: "AES256"}}
		return &encryptionRules{Space: namespace, Rules: []encryptionRule{rule}}, nil
	},
	erased: true,
}

func checkEncryption(rules *encryptionRules) error {
	rules.XMLName.Space, rules.Space = "", namespace
	if len(rules.Rules) != 1 || rules.Rules[0].Apply == nil {
		return malformed()
	}
	apply := rules.Rules[0].Apply
	switch apply.Algorithm {
	case "AES256":
		if apply.Key != "" {
			return refusal(http.StatusBadRequest, "InvalidArgument",
				"a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse")
		}
		return nil
	case "aws:kms", "aws:kms:dsse":
		return refusal(http.StatusNotImplemented, "NotImplemented",
			"SSEAlgorithm %s needs a key service, which this cloud has none of: use AES256", apply.Algorithm)
	}
	return malformed()
}
