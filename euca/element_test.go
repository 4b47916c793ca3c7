package euca

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestElement(t *testing.T) {
	e, err := parseReply([]byte(`<?xml version="1.0"?><R xmlns="x"><a>1</a><b><c> two </c></b><fooSet/><gooSet><item>x</item></gooSet><d/></R>`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"a": "1", "b/c": " two ", "b": "", "b/c/d": "", "nothing/at": "", "d": ""} {
		if got := e.get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	var none *element
	if none.get("a") != "" || none.texts("a", "b") != nil {
		t.Error("what isn't there has something")
	}
	text, err := json.Marshal(e)
	if want := `{"a":"1","b":{"c":" two "},"d":"","fooSet":[],"gooSet":["x"]}`; string(text) != want || err != nil {
		t.Errorf("JSON: %s, %v", text, err)
	}
}

func TestReplyThatIsNone(t *testing.T) {
	for _, reply := range []string{
		"", "text", "<a>", "<a></b>", "<a/><b/>", "<a/>more<b>", "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
		strings.Repeat("<a>", maxDepth+1) + strings.Repeat("</a>", maxDepth+1),
	} {
		if e, err := parseReply([]byte(reply)); err == nil {
			t.Errorf("%.60q: %+v", reply, e)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("<a><item>x</item><bSet/></a>"), "a/b")
	f.Fuzz(func(t *testing.T, reply []byte, path string) {
		e, err := parseReply(reply)
		if err != nil {
			return
		}
		e.get(path)
		if _, err := json.Marshal(e); err != nil {
			t.Error(err)
		}
	})
}

func FuzzMapping(f *testing.F) {
	for _, seed := range []string{"a=none", "a=ephemeral0", "a=snap-1:2:true:io1:3", "a=:::", "=", "a=:99999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMapping(text)
		if err == nil && (m["DeviceName"] == "" || len(m) < 2) {
			t.Errorf("%q maps %v", text, m)
		}
	})
}
