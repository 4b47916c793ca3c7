package walrus

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"

	"github.com/gofiber/fiber/v3"
)

// prefixes are Eucalyptus's paths of the object store: today's, and that of
// before version 4.
var prefixes = []string{"/services/objectstorage", "/services/Walrus"}

// originalPath is where the library looks for the path that was signed,
// unescaped, when the request's own has been rewritten.
const originalPath = "original-uri-path"

// plain reports whether a request says by its credential's scope that it is for
// S3. It is a guess that spares the front a question: the library verifies.
func plain(authorization, query []byte) bool {
	return bytes.Contains(authorization, []byte("/s3/aws4_request")) ||
		bytes.Contains(query, []byte("%2Fs3%2Faws4_request"))
}

// Owns reports whether a path lies below one of Eucalyptus's paths of the
// object store.
func Owns(path string) bool {
	_, ok := stripPrefix(path)
	return ok
}

func stripPrefix(path string) (string, bool) {
	for _, prefix := range prefixes {
		rest, ok := strings.CutPrefix(path, prefix)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		if rest == "" {
			rest = "/"
		}
		return rest, true
	}
	return path, false
}

// steer decides whether a request on a connection of ours is for S3, and takes
// Eucalyptus's prefix off its path. The client signed the path with the prefix,
// so the original is kept for the signature.
func (w *Walrus) steer(ctx fiber.Ctx) error {
	uri := ctx.Request().URI()
	path := string(uri.PathOriginal())
	stripped, ours := stripPrefix(path)
	if !ours && w.elsewhere != nil {
		signed := plain(ctx.Request().Header.Peek(fiber.HeaderAuthorization), uri.QueryString())
		if !signed && !askFront(ctx, w.elsewhere) {
			return nil
		}
	}
	if ours {
		if signed, err := url.PathUnescape(path); err == nil { // guard refuses it otherwise
			ctx.Locals(originalPath, signed)
		}
		ctx.Path(stripped)
	}
	return ctx.Next()
}

// handback is how the front says of a request that we asked it about that it
// is for S3 after all: it calls Handler, which finds this in the context.
type handback struct{ mine bool }

type handbackKey struct{}

// askFront lets the front answer a request that isn't plainly S3's. It returns
// true if the front wants us to.
func askFront(ctx fiber.Ctx, front http.Handler) bool {
	back := &handback{}
	answer := newBridge(ctx.RequestCtx())
	request, err := answer.request(back)
	if err != nil {
		ctx.Status(http.StatusBadRequest)
		return false
	}
	front.ServeHTTP(answer, request)
	if !back.mine {
		answer.finish()
	}
	return back.mine
}
