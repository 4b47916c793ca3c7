package walrus

import (
	"encoding/xml"
	"net/http"

	"github.com/versity/versitygw/auth"
)

// publicAccess says what of a bucket's sharing with everybody is refused or
// ignored.
type publicAccess struct {
	XMLName  xml.Name `xml:"PublicAccessBlockConfiguration"`
	Space    string   `xml:"xmlns,attr,omitempty"`
	ACLs     bool     `xml:"BlockPublicAcls"`
	Ignore   bool     `xml:"IgnorePublicAcls"`
	Policy   bool     `xml:"BlockPublicPolicy"`
	Restrict bool     `xml:"RestrictPublicBuckets"`
}

var accessBlock = document{
	name: "publicAccessBlock", get: auth.GetBucketPublicAccessBlockAction, put: auth.PutBucketPublicAccessBlockAction,
	blank: func() any { return &publicAccess{} },
	check: func(_ *desk, value any) error {
		block := value.(*publicAccess)
		block.XMLName.Space, block.Space = "", namespace
		return nil
	},
	initial: func() (any, error) {
		return nil, refusal(http.StatusNotFound, "NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found")
	},
	erased: true,
}

// blocked is what of public access a bucket blocks.
func (s *store) blocked(bucket string) (publicAccess, error) {
	var block publicAccess
	_, err := s.document(bucket, accessBlock.name, &block)
	return block, err
}
