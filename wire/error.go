package wire

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"
)

// Error is what a client is told: one of the codes that EC2, IAM or STS document
// and a message for the person who reads it. It is made only at the edge, where a
// request is being answered; deeper rooms return errors of their own.
type Error struct {
	Code    string // as the service documents it, such as InvalidParameterValue
	Message string // names what was wrong, the value, and what to do
	Status  int    // of HTTP
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// statuses holds the codes that do not travel with status 400. Facts: the pages
// "Error codes for the Amazon EC2 API" and "Common errors" of IAM and STS.
var statuses = map[string]int{
	"AuthFailure":                http.StatusUnauthorized,
	"AccessDenied":               http.StatusForbidden,
	"Blocked":                    http.StatusForbidden,
	"ExpiredToken":               http.StatusForbidden,
	"InvalidClientTokenId":       http.StatusForbidden,
	"MissingAuthenticationToken": http.StatusForbidden,
	"OptInRequired":              http.StatusForbidden,
	"SignatureDoesNotMatch":      http.StatusForbidden,
	"UnauthorizedOperation":      http.StatusForbidden,

	"NoSuchEntity":          http.StatusNotFound,
	"MethodNotAllowed":      http.StatusMethodNotAllowed,
	"DeleteConflict":        http.StatusConflict,
	"EntityAlreadyExists":   http.StatusConflict,
	"LimitExceeded":         http.StatusConflict,
	"DryRunOperation":       http.StatusPreconditionFailed,
	"RequestEntityTooLarge": http.StatusRequestEntityTooLarge,

	"InsufficientAddressCapacity":  http.StatusInternalServerError,
	"InsufficientCapacity":         http.StatusInternalServerError,
	"InsufficientInstanceCapacity": http.StatusInternalServerError,
	"InsufficientVolumeCapacity":   http.StatusInternalServerError,
	"InternalError":                http.StatusInternalServerError,
	"InternalFailure":              http.StatusInternalServerError,
	"ServiceFailure":               http.StatusInternalServerError,

	"RequestLimitExceeded": http.StatusServiceUnavailable,
	"ServiceUnavailable":   http.StatusServiceUnavailable,
	"Unavailable":          http.StatusServiceUnavailable,
}

// Errorf makes an error of that code. Its status is the one AWS sends with the
// code, and 400 for the many that are the client's mistake.
func Errorf(code, format string, args ...any) *Error {
	status, special := statuses[code]
	if !special {
		status = http.StatusBadRequest
	}
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Status: status}
}

// MissingParameter says that the action can't do without the parameter.
func MissingParameter(name string) *Error {
	return Errorf("MissingParameter", "The request must contain the parameter %s", name)
}

// InvalidParameterValue says what is wrong with a parameter's value; the value is
// quoted, cut where it is long. The rest of the message is a sentence: what is
// expected instead.
func InvalidParameterValue(name, value, format string, args ...any) *Error {
	return Errorf("InvalidParameterValue", "Value (%s) for parameter %s is invalid. %s",
		Shorten(value), Shorten(name), fmt.Sprintf(format, args...))
}

// InvalidParameterCombination says which parameters contradict each other.
func InvalidParameterCombination(format string, args ...any) *Error {
	return Errorf("InvalidParameterCombination", format, args...)
}

// UnknownParameter says that no such parameter is known.
func UnknownParameter(name string) *Error {
	return Errorf("UnknownParameter", "The parameter %s is not recognized", Shorten(name))
}

// UnsupportedOperation says that the request is understood and isn't served.
func UnsupportedOperation(format string, args ...any) *Error {
	return Errorf("UnsupportedOperation", format, args...)
}

// InternalError is all that a client hears of a failure that is ours; the request
// id, which the reply carries, leads the administrator to the log line.
func InternalError() *Error {
	return Errorf("InternalError", "An internal error has occurred; the log of the cloud has it under this request's id")
}

// AsError is the error as a client may see it: the wire error that err wraps, or
// InternalError. A status of 500 tells the caller that err belongs in the log.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return InternalError()
}

// shortened is the longest quotation of a client's words in a message, in bytes.
const shortened = 128

// Shorten cuts a client's words to what fits into a message, at a character.
func Shorten(s string) string {
	if len(s) <= shortened {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	cut := shortened
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strings.ToValidUTF8(s[:cut], "\uFFFD") + "…"
}
