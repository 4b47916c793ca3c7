package wire

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
)

// RequestIDHeader carries the request's id on every reply, for clients that read it
// where the body has none.
const RequestIDHeader = "X-Amzn-Requestid"

// WriteEC2 answers with <ActionResponse>: the request's id, then the members of out,
// a struct with plain encoding/xml tags (or nil: no members). A slice tagged
// `xml:"instancesSet>item"` has its wrapper written even when it's empty, which
// clients rely on.
//
// The reply is encoded whole before its first byte is sent. An error means that it
// couldn't be, and that nothing was written: the caller still can answer. A client
// that has gone away is no error.
func WriteEC2(w http.ResponseWriter, action, version, requestID string, out any) error {
	members, err := encodeMembers(action+"Response", out)
	if err != nil {
		return err
	}
	b := begin()
	open(b, action+"Response", EC2Namespace(version))
	element(b, "requestId", requestID)
	b.Write(members)
	shut(b, action+"Response")
	send(w, http.StatusOK, requestID, b)
	return nil
}

// WriteQuery answers as IAM and STS do: <ActionResult> with the members of out, left
// out where out is nil, then the request's id. Errors are WriteEC2's.
func WriteQuery(w http.ResponseWriter, namespace, action, requestID string, out any) error {
	b := begin()
	open(b, action+"Response", namespace)
	if out != nil {
		members, err := encodeMembers(action+"Result", out)
		if err != nil {
			return err
		}
		open(b, action+"Result", "")
		b.Write(members)
		shut(b, action+"Result")
	}
	open(b, "ResponseMetadata", "")
	element(b, "RequestId", requestID)
	shut(b, "ResponseMetadata")
	shut(b, action+"Response")
	send(w, http.StatusOK, requestID, b)
	return nil
}

// WriteEC2Error tells an EC2 client of the error, as AsError shows it.
func WriteEC2Error(w http.ResponseWriter, requestID string, err error) {
	e := AsError(err)
	b := begin()
	open(b, "Response", "")
	open(b, "Errors", "")
	open(b, "Error", "")
	element(b, "Code", e.Code)
	element(b, "Message", e.Message)
	shut(b, "Error")
	shut(b, "Errors")
	element(b, "RequestID", requestID)
	shut(b, "Response")
	send(w, e.Status, requestID, b)
}

// WriteQueryError tells a client of IAM or STS of the error, as AsError shows it.
func WriteQueryError(w http.ResponseWriter, namespace, requestID string, err error) {
	e := AsError(err)
	fault := "Sender"
	if e.Status >= http.StatusInternalServerError {
		fault = "Receiver"
	}
	b := begin()
	open(b, "ErrorResponse", namespace)
	open(b, "Error", "")
	element(b, "Type", fault)
	element(b, "Code", e.Code)
	element(b, "Message", e.Message)
	shut(b, "Error")
	element(b, "RequestId", requestID)
	shut(b, "ErrorResponse")
	send(w, e.Status, requestID, b)
}

// encodeMembers returns what encoding/xml writes between the tags of out's element;
// encoding/xml itself has no way to leave them away.
func encodeMembers(name string, out any) ([]byte, error) {
	if out == nil {
		return nil, nil
	}
	if elem(reflect.TypeOf(out)).Kind() != reflect.Struct {
		return nil, fmt.Errorf("encode the reply %s from %T: it isn't a struct", name, out)
	}
	var b bytes.Buffer
	err := xml.NewEncoder(&b).EncodeElement(out, xml.StartElement{Name: xml.Name{Local: name}})
	if err != nil {
		return nil, fmt.Errorf("encode the reply %s from %T: %w", name, out, err)
	}
	members, opened := bytes.CutPrefix(b.Bytes(), []byte("<"+name+">"))
	members, shut := bytes.CutSuffix(members, []byte("</"+name+">"))
	if !opened || !shut {
		return nil, fmt.Errorf("encode the reply %s from %T: its element has attributes", name, out)
	}
	return members, nil
}

func begin() *bytes.Buffer {
	return bytes.NewBufferString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n")
}

func open(b *bytes.Buffer, name, namespace string) {
	b.WriteString("<" + name)
	if namespace != "" {
		b.WriteString(` xmlns="`)
		escape(b, namespace)
		b.WriteString(`"`)
	}
	b.WriteString(">")
}

func shut(b *bytes.Buffer, name string) { b.WriteString("</" + name + ">") }

func element(b *bytes.Buffer, name, text string) {
	open(b, name, "")
	escape(b, text)
	shut(b, name)
}

// escape writes text with what XML can't hold, such as NUL, as U+FFFD.
func escape(b *bytes.Buffer, text string) {
	_ = xml.EscapeText(b, []byte(text)) // a buffer takes all
}

func send(w http.ResponseWriter, status int, requestID string, b *bytes.Buffer) {
	h := w.Header()
	h.Set("Content-Type", "text/xml;charset=UTF-8")
	h.Set("Cache-Control", "no-cache, no-store")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Set(RequestIDHeader, requestID)
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client is gone, and there's nobody to tell
}
