package metadata

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"time"

	"mallee/network"
)

const (
	tokenPath   = "latest/api/token"
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	maxTTL      = 6 * time.Hour
)

// giveToken answers PUT /latest/api/token. A request that came through a proxy
// is refused: it may be somebody else's (AWS does the same).
func (s *service) giveToken(w http.ResponseWriter, r *http.Request, i Instance) {
	seconds, err := strconv.ParseUint(r.Header.Get(ttlHeader), 10, 32) // digits alone
	ttl := time.Duration(seconds) * time.Second
	switch {
	case r.Method != http.MethodPut:
		w.Header().Set("Allow", http.MethodPut)
		refuse(w, http.StatusMethodNotAllowed)
	case r.Header.Get("X-Forwarded-For") != "":
		refuse(w, http.StatusForbidden)
	case err != nil || ttl < time.Second || ttl > maxTTL:
		refuse(w, http.StatusBadRequest)
	default:
		network.LimitHops(r.Context(), i.Hops())
		w.Header().Set(ttlHeader, strconv.FormatUint(seconds, 10))
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, s.token(i, s.Now().Add(ttl)))
	}
}

// token of an instance, good until then.
func (s *service) token(i Instance, until time.Time) string {
	expiry := binary.BigEndian.AppendUint64(nil, uint64(until.Unix()))
	return base64.URLEncoding.EncodeToString(append(expiry, s.mac(i, expiry)...))
}

func (s *service) mac(i Instance, expiry []byte) []byte {
	m := hmac.New(sha256.New, s.Secret)
	m.Write(expiry)
	m.Write([]byte(i.ID))
	return m.Sum(nil)
}

// admitted says whether a request may read: with a token that is good, or
// without one where none is required.
func (s *service) admitted(r *http.Request, i Instance) bool {
	given := r.Header.Values(tokenHeader)
	if len(given) == 0 {
		return !i.TokensRequired
	}
	raw, err := base64.URLEncoding.DecodeString(given[0])
	if err != nil || len(raw) != 8+sha256.Size {
		return false
	}
	good := hmac.Equal(raw[8:], s.mac(i, raw[:8]))
	return good && s.Now().Unix() < int64(binary.BigEndian.Uint64(raw))
}
