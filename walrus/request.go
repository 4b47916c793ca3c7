package walrus

import (
	"encoding/xml"
	"net/http"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
)

// inspect refuses requests that S3 refuses and the library would take: a header whose
// value means nothing must not be ignored.
func inspect(ctx fiber.Ctx) error {
	key, _ := ctx.Locals(keyName).(string)
	query := ctx.Request().URI().QueryArgs()
	switch ctx.Method() {
	case http.MethodGet, http.MethodHead:
		if key == "" && query.Has("continuation-token") && len(query.Peek("continuation-token")) == 0 {
			return invalidArgument("The continuation token provided is incorrect")
		}
		return checkOverrides(ctx, key)
	case http.MethodPut, http.MethodPost:
		if key != "" {
			return checkStorage(ctx)
		}
		if query.Has("delete") {
			return checkDeletion(ctx)
		}
	}
	return nil
}

// checkOverrides refuses to rewrite the header of an answer for nobody in particular:
// a link to a public object must not become another thing.
func checkOverrides(ctx fiber.Ctx, key string) error {
	if key == "" || ctx.Get(fiber.HeaderAuthorization) != "" || utils.IsPresignedURLAuth(ctx) {
		return nil
	}
	for name := range ctx.Request().URI().QueryArgs().All() {
		if strings.HasPrefix(string(name), "response-") {
			return refusal(http.StatusBadRequest, "InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.")
		}
	}
	return nil
}

// checkStorage checks how an object shall be kept.
func checkStorage(ctx fiber.Ctx) error {
	if class := ctx.Get("X-Amz-Storage-Class"); class != "" && !slices.Contains(storageClasses, class) {
		return refusal(http.StatusBadRequest, "InvalidStorageClass", "The storage class you specified is not valid")
	}
	switch method := ctx.Get(encryptionHeader); method {
	case "", "AES256":
		return nil
	case "aws:kms", "aws:kms:dsse":
		return refusal(http.StatusNotImplemented, "NotImplemented", "%s %s needs a key service, which this cloud has none of: use AES256", encryptionHeader, method)
	}
	return invalidArgument("The encryption method specified is not supported")
}

// storageClasses are those that an object may be put with. All are kept alike.
var storageClasses = append([]string{"STANDARD", "REDUCED_REDUNDANCY"}, classes...)

// mostDeletions is S3's limit of keys in one request.
const mostDeletions = 1000

// deletion is the body of DeleteObjects, as far as it is looked at here.
type deletion struct {
	Objects []struct {
		Key string `xml:"Key"`
	} `xml:"Object"`
	Quiet bool `xml:"Quiet"`
}

// quietName is the request-local name that tells finish to leave out what was deleted.
const quietName = "walrus-quiet"

func checkDeletion(ctx fiber.Ctx) error {
	var body deletion
	if err := readXML(ctx, &body); err != nil {
		return err
	}
	if len(body.Objects) == 0 || len(body.Objects) > mostDeletions {
		return s3err.GetAPIError(s3err.ErrMalformedXML)
	}
	if body.Quiet {
		ctx.Locals(quietName, true)
	}
	return nil
}

// quiet takes what was deleted out of DeleteObjects' answer.
func quiet(ctx fiber.Ctx) error {
	var answer struct {
		XMLName xml.Name `xml:"DeleteResult"`
		Errors  []struct {
			Inner string `xml:",innerxml"`
		} `xml:"Error"`
	}
	if err := xml.Unmarshal(ctx.Response().Body(), &answer); err != nil {
		return err
	}
	data, err := xml.Marshal(answer)
	if err != nil {
		return err
	}
	ctx.Response().SetBody(append([]byte(xml.Header), data...))
	ctx.Response().Header.SetContentLength(len(ctx.Response().Body()))
	return nil
}
