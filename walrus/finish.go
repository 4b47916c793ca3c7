package walrus

import (
	"bytes"
	"net/http"
	"strings"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"
)

// finish puts into the library's answers what S3's have and the library leaves
// out or says otherwise.
func finish(ctx fiber.Ctx) error {
	err := ctx.Next()
	header := &ctx.Response().Header
	header.Set(fiber.HeaderServer, "AmazonS3")
	if is, _ := ctx.Locals(quietName).(bool); is && err == nil && ctx.Response().StatusCode() == http.StatusOK {
		err = quiet(ctx)
	}
	oneID(header)
	if k, ok := customerFrom(ctx.RequestCtx()); ok && encrypts(ctx) {
		header.Set(customerPrefix+"Algorithm", "AES256")
		header.Set(customerPrefix+"Key-Md5", k.digest)
	} else if encrypts(ctx) && len(header.Peek(encryptionHeader)) == 0 {
		header.Set(encryptionHeader, "AES256")
	}
	if status := ctx.Response().StatusCode(); status >= http.StatusBadRequest {
		reword(ctx)
	}
	return err
}

// oneID leaves one of each request id, which the library sets in two spellings.
func oneID(header *fasthttp.ResponseHeader) {
	for _, name := range []string{"X-Amz-Request-Id", "X-Amz-Id-2"} {
		lower := strings.ToLower(name)
		if len(header.Peek(name)) > 0 && len(header.PeekAll(lower))+len(header.PeekAll(name)) > 1 {
			value := string(header.Peek(name))
			header.Del(lower)
			header.Del(name)
			header.Set(name, value)
		}
	}
}

const encryptionHeader = "X-Amz-Server-Side-Encryption"

// encrypts reports whether an answer says how an object is encrypted. S3's says
// AES256 of every object, and clients compare it. Here it promises nothing of the
// disk: bytes lie there as they came.
func encrypts(ctx fiber.Ctx) bool {
	key, _ := ctx.Locals(keyName).(string)
	if key == "" || ctx.Response().StatusCode() >= http.StatusMultipleChoices {
		return false
	}
	query := ctx.Request().URI().QueryArgs()
	for _, other := range []string{"acl", "tagging", "retention", "legal-hold", "attributes"} {
		if query.Has(other) {
			return false
		}
	}
	switch ctx.Method() {
	case http.MethodGet, http.MethodPost:
		return ctx.Method() == http.MethodPost || !query.Has("uploadId")
	}
	return ctx.Method() == http.MethodPut || ctx.Method() == http.MethodHead
}

// wordings are messages of errors that clients' tests compare, as S3 has them.
var wordings = [][2][]byte{
	{[]byte("The specified bucket does not exist."), []byte("The specified bucket does not exist")},
	{[]byte("<Message>Access Denied.</Message>"), []byte("<Message>Access Denied</Message>")},
	{[]byte("The bucket policy does not exist."), []byte("The bucket policy does not exist")},
}

func reword(ctx fiber.Ctx) {
	body := ctx.Response().Body()
	for _, w := range wordings {
		if bytes.Contains(body, w[0]) {
			ctx.Response().SetBody(bytes.Replace(body, w[0], w[1], 1))
			return
		}
	}
}
