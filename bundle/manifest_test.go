package bundle

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

// sampleManifest has every element that Write can write.
func sampleManifest() *Manifest {
	m := &Manifest{
		Bundler: Bundler{"mallee", "1.0", "0"}, Architecture: "x86_64", KernelID: "eki-0a1b2c3d", RamdiskID: "eri-0a1b2c3d",
		BlockDeviceMappings: []Mapping{{"ami", "sda1"}, {"ephemeral0", "sda2"}}, ProductCodes: []string{"A1", "B2"},
		Name: "img & co", Account: "123456789012", Type: Machine, Size: 20000000, BundledSize: 10485776,
		ForCloud:  Wrapped{bytes.Repeat([]byte{1}, 256), bytes.Repeat([]byte{2}, 256)},
		ForUser:   Wrapped{bytes.Repeat([]byte{3}, 256), bytes.Repeat([]byte{4}, 256)},
		Signature: bytes.Repeat([]byte{5}, 256),
		Parts:     []Part{{Index: 0, Name: "img & co.part.00"}, {Index: 1, Name: "img & co.part.01"}},
	}
	for i := range m.Digest {
		m.Digest[i], m.Parts[0].Digest[i], m.Parts[1].Digest[i] = byte(i), byte(i+1), byte(i+2)
	}
	return m
}

func (m *Manifest) xml(t testing.TB) []byte {
	t.Helper()
	xml, err := m.marshal(func([]byte) (string, error) { return hex.EncodeToString(m.Signature), nil })
	if err != nil {
		t.Fatal(err)
	}
	return xml
}

func TestManifestTranscript(t *testing.T) {
	const path = "testdata/machine.manifest.xml"
	xml := sampleManifest().xml(t)
	if *update {
		if err := os.WriteFile(path, xml, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(xml, want) {
		t.Errorf("manifest has changed (-update if it should):\n%s", xml)
	}
}

func TestParseManifest(t *testing.T) {
	want := sampleManifest()
	got, err := ParseManifest(want.xml(t))
	if err != nil {
		t.Fatal(err)
	}
	from, to := bytes.Index(want.xml(t), []byte("<machine_configuration>")), bytes.Index(want.xml(t), []byte("<signature>"))
	if signed := want.xml(t)[from:to]; !bytes.Equal(got.Signed(), signed) {
		t.Errorf("signed bytes are %s\nnot %s", got.Signed(), signed)
	}
	got.signed = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("have %+v\nwant %+v", got, want)
	}
}

// edit replaces what must be there.
func edit(t testing.TB, xml []byte, pairs ...string) []byte {
	t.Helper()
	for pair := range slices.Chunk(pairs, 2) {
		if !bytes.Contains(xml, []byte(pair[0])) {
			t.Fatalf("no %q in the manifest", pair[0])
		}
		xml = bytes.Replace(xml, []byte(pair[0]), []byte(pair[1]), 1)
	}
	return xml
}

// Manifests of other bundlers, which are to be read.
func TestParseOthers(t *testing.T) {
	xml := sampleManifest().xml(t)
	tests := map[string][]string{
		"declaration":          {"<manifest>", "<?xml version='1.0' encoding='UTF-8'?>\n<!-- made by hand -->\n<manifest>"},
		"white space":          {"<machine_configuration>", "\n  <machine_configuration>\n    ", "<image>", "\n  <image>\n", "</manifest>", "\n</manifest>\n"},
		"both spellings read":  {"<block_device_mapping><mapping>", "<block_device_mappings><block_device_mapping>", "</mapping><mapping>", "</block_device_mapping><block_device_mapping>", "</mapping></block_device_mapping>", "</block_device_mapping></block_device_mappings>", "<product_codes>", "<productcodes>", "</product_codes>", "</productcodes>"},
		"single quotes":        {`<parts count="2">`, `<parts count='2' >`},
		"self-closing":         {"<ramdisk_id>eri-0a1b2c3d</ramdisk_id>", "<ramdisk_id/>"},
		"ancestry":             {"<parts", "<ancestry><ancestor_ami_id>ami-12345678</ancestor_ami_id></ancestry><parts"},
		"no type":              {"<type>machine</type>", ""},
		"no bundler":           {"<bundler><name>mallee</name><version>1.0</version><release>0</release></bundler>", ""},
		"upper-case digest":    {"000102030405060708090a0b0c0d0e0f10111213", "000102030405060708090A0B0C0D0E0F10111213"},
		"escaped architecture": {"x86_64", "x86&#95;64"},
	}
	for name, edits := range tests {
		m, err := ParseManifest(edit(t, xml, edits...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := sampleManifest()
		if !slices.Equal(m.BlockDeviceMappings, want.BlockDeviceMappings) || !slices.Equal(m.ProductCodes, want.ProductCodes) ||
			!slices.Equal(m.Parts, want.Parts) || m.Architecture != want.Architecture || m.Digest != want.Digest {
			t.Errorf("%s: have %+v", name, m)
		}
	}
}

const extraPart = `<part index="5"><filename>x</filename><digest algorithm="SHA1">0000000000000000000000000000000000000000</digest></part></parts>`

// refused are edits of the sample that make it bad, with a piece of the error each.
var refused = []struct {
	want  string
	edits []string
}{
	{"document type", []string{"<manifest>", `<!DOCTYPE manifest [<!ENTITY a "b">]><manifest>`}},
	{"document type", []string{"<version>", `<!DOCTYPE x SYSTEM "file:///etc/passwd"><version>`}},
	{"invalid character entity", []string{"x86_64", "&xxe;"}},
	{"processing instruction", []string{"<image>", "<?php ?><image>"}},
	{"encoding", []string{"<manifest>", `<?xml version="1.0" encoding="UTF-7"?><manifest>`}},
	{"text", []string{"<image>", "<image>x"}},
	{"one <manifest> is expected", []string{"<manifest>", "<html>", "</manifest>", "</html>"}},
	{"one <manifest> is expected", []string{"</manifest>", "</manifest><manifest/>"}},
	{"ends early", []string{"</manifest>", ""}},
	{"ends early", []string{"</signature></manifest>", ""}},
	{"not well-formed", []string{"</image>", "</imago>"}},
	{"unknown element <extra>", []string{"<image>", "<image><extra/>"}},
	{"unknown element <name>", []string{"<name>img", `<name xmlns="urn:x">img`}},
	{"<version> twice", []string{"<version>2007-10-10</version>", "<version>2007-10-10</version><version>2007-10-10</version>"}},
	{"<user> twice", []string{"<user>", "<user>123456789012</user><user>"}},
	{"<image> twice", []string{"<signature>", "<image></image><signature>"}},
	{"twice, in two spellings", []string{"<product_codes>", "<productcodes/><product_codes>"}},
	{"missing <signature>", []string{"<signature>" + strings.Repeat("05", 256) + "</signature>", ""}},
	{"missing <device>", []string{"<device>sda1</device>", ""}},
	{"2006-01-01", []string{"2007-10-10", "2006-01-01"}},
	{"attribute unknown", []string{"<image>", `<image a="b">`}},
	{"attribute unknown or twice", []string{`<part index="0">`, `<part index="0" index="0">`}},
	{"missing attribute index", []string{`<part index="0">`, `<part>`}},
	{"holds more than text", []string{"<user>", "<user><b/>"}},
	{"holds more than text", []string{"<user>123456", "<user>123<!-- -->456"}},
	{"12-digit", []string{"123456789012", "12345678901"}},
	{"12-digit", []string{"123456789012", "12345678901٣"}},
	{"not machine, kernel", []string{"<type>machine", "<type>floppy"}},
	{"user_encrypted_key and", []string{"<user_encrypted_iv>" + strings.Repeat("04", 256), "<user_encrypted_iv>"}},
	{"ec2_encrypted_key: empty", []string{strings.Repeat("01", 256), ""}},
	{"ec2_encrypted_iv: not hex", []string{"<ec2_encrypted_iv>02", "<ec2_encrypted_iv>zz"}},
	{"ec2_encrypted_iv: not hex", []string{"<ec2_encrypted_iv>02", "<ec2_encrypted_iv>2"}},
	{"more than any RSA key", []string{"<signature>", "<signature>" + strings.Repeat("00", 3000)}},
	{"signature: empty", []string{strings.Repeat("05", 256), ""}},
	{"signature: not hex", []string{strings.Repeat("05", 256), "unsigned"}},
	{"MD5", []string{`algorithm="SHA1">0001`, `algorithm="MD5">0001`}},
	{"AES-256", []string{"AES-128-CBC", "AES-256-CBC"}},
	{"missing attribute algorithm", []string{` algorithm="SHA1">0001`, `>0001`}},
	{"38 characters", []string{"000102", "0001"}},
	{"digest: not hex", []string{"000102", "00010g"}},
	{"size", []string{"<size>20000000", "<size>0"}},
	{"size", []string{"<size>20000000", "<size>-5"}},
	{"size", []string{"<size>20000000", "<size>+5"}},
	{"size", []string{"<size>20000000", "<size>0x10"}},
	{"size", []string{"<size>20000000", "<size>1e9"}},
	{"size", []string{"<size>20000000", "<size> 5"}},
	{"size", []string{"<size>20000000", "<size>"}},
	{"size", []string{"<size>20000000", "<size>9223372036854775808"}},
	{"size", []string{"<size>20000000", "<size>1125899906842625"}},
	{"not a multiple", []string{"<bundled_size>10485776", "<bundled_size>10485777"}},
	{"bundled_size", []string{"<bundled_size>10485776", "<bundled_size>0"}},
	{"count says 3, 2 are listed", []string{`count="2"`, `count="3"`}},
	{"count says 1, 2 are listed", []string{`count="2"`, `count="1"`}},
	{"count", []string{`count="2"`, `count="0"`}},
	{"count", []string{`count="2"`, `count="-2"`}},
	{"count", []string{`count="2"`, `count="99999999999999999999"`}},
	{`part index "2" where 1 is next`, []string{`index="1"`, `index="2"`}},
	{`part index "0" where 1 is next`, []string{`index="1"`, `index="0"`}},
	{`part index "1" where 0 is next`, []string{`index="0"`, `index="1"`}},
	{`part index "01" where 1 is next`, []string{`index="1"`, `index="01"`}},
	{`part index "5" where 2 is next`, []string{"</parts>", extraPart}},
	{"was another part's", []string{"co.part.01", "co.part.00"}},
	{"path separator", []string{"img &amp; co.part.00", "../img.part.00"}},
	{"path separator", []string{"img &amp; co.part.00", "/etc/passwd"}},
	{"path separator", []string{"img &amp; co.part.00", "a/b"}},
	{"path separator", []string{"img &amp; co.part.00", `a\b`}},
	{"path separator", []string{"img &amp; co.part.00", "&#46;&#46;&#47;a"}},
	{"not a file name", []string{"img &amp; co.part.00", ".."}},
	{"not a file name", []string{"img &amp; co.part.00", "."}},
	{"not a file name", []string{"img &amp; co.part.00", ""}},
	{"illegal character", []string{"img &amp; co.part.00", "a\x00b"}},
	{"illegal character", []string{"img &amp; co.part.00", "a&#0;b"}},
	{"invalid UTF-8", []string{"img &amp; co.part.00", "a\xffb"}},
	{"control or invalid", []string{"img &amp; co.part.00", "a&#10;b"}},
	{"longer than 255", []string{"img &amp; co.part.00", strings.Repeat("a", 256)}},
	{"can't make 16 bytes", []string{"<bundled_size>10485776", "<bundled_size>16", `count="2"`, `count="17"`, "</parts>", manyParts(2, 17)}},
	{"value", []string{"x86_64", "x86 64"}},
	{"longer than 128", []string{"x86_64", strings.Repeat("x", 129)}},
}

func TestParseRefuses(t *testing.T) {
	xml := sampleManifest().xml(t)
	for _, test := range refused {
		m, err := ParseManifest(edit(t, xml, test.edits...))
		if m != nil || !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: want %q, have %v", test.edits, test.want, err)
		}
	}
	for want, data := range map[string][]byte{
		"ends early":           nil,
		"not well-formed":      []byte("\x1f\x8b\x08garbage"),
		"text":                 []byte("garbage"),
		"more than the 524288": make([]byte, MaxManifestSize+1),
		"one <manifest>":       bytes.Repeat([]byte("<a>"), MaxManifestSize/3),
		"unknown element <a>":  append([]byte("<manifest>"), bytes.Repeat([]byte("<a>"), MaxManifestSize/4)...),
	} {
		if _, err := ParseManifest(data); !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have %v", want, err)
		}
	}
}

func manyParts(from, to int) string {
	m := &Manifest{}
	for i := range to {
		m.Parts = append(m.Parts, Part{Index: i, Name: PartName("many", i)})
	}
	var d document
	m.marshalImage(&d)
	xml := d.String()
	at := strings.Index(xml, `<part index="`+string(rune('0'+from))+`">`)
	return strings.TrimSuffix(xml[at:], "</image>")
}

func TestKind(t *testing.T) {
	tests := []struct {
		kind            Kind
		kernel, ramdisk string
		name            string
		want            Kind
	}{
		{Machine, "", "", "img.manifest.xml", Machine},
		{Machine, "eki-12345678", "eri-12345678", "vmlinuz.manifest.xml", Machine},
		{Kernel, "", "", "img.manifest.xml", Kernel},
		{Kernel, "true", "", "img.manifest.xml", Kernel},
		{Ramdisk, "", "true", "img.manifest.xml", Ramdisk},
		{Machine, "true", "", "img.manifest.xml", Kernel},
		{"", "true", "", "img.manifest.xml", Kernel},
		{"", "yes", "", "initrd.manifest.xml", Kernel},
		{"", "", "yes", "img.manifest.xml", Ramdisk},
		{"", "", "", "bucket/vmlinuz-6.1.manifest.xml", Kernel},
		{"", "", "", "initrd.img.manifest.xml", Ramdisk},
		{"", "", "", "vmlinuz/img.manifest.xml", Machine},
		{"", "True", "", "img.manifest.xml", Machine},
		{Machine, "true", "true", "img.manifest.xml", ""},
		{Kernel, "", "true", "img.manifest.xml", ""},
		{Ramdisk, "yes", "", "img.manifest.xml", ""},
	}
	for _, test := range tests {
		m := &Manifest{Type: test.kind, KernelID: test.kernel, RamdiskID: test.ramdisk}
		got, err := m.Kind(test.name)
		if got != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%+v: have %q, %v", test, got, err)
		}
	}
}

func TestVerify(t *testing.T) {
	_, xml, _ := bundled(t, testImage(100), testOptions())
	user, cloud := &userID().key.PublicKey, &cloudID().key.PublicKey
	parse := func(edits ...string) *Manifest {
		m, err := ParseManifest(edit(t, xml, edits...))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	good := parse()
	signature := "<signature>" + hex.EncodeToString(good.Signature) + "</signature>"
	bare := parse(signature, "<signature>UNSIGNED</signature>")
	key, err := RSAKey(userID().cert)
	if err != nil || !key.Equal(user) {
		t.Fatalf("certificate's key: %v", err)
	}
	tests := []struct {
		name     string
		manifest *Manifest
		policy   Policy
		keys     []bool // true is the signer's
		want     error
	}{
		{"by the user", good, RequireSignature, []bool{true}, nil},
		{"by one of two", good, RequireSignature, []bool{false, true}, nil},
		{"by another", good, RequireSignature, []bool{false}, ErrSignature},
		{"by nobody", good, RequireSignature, nil, ErrSignature},
		{"wrong though none is needed", good, AllowUnsigned, []bool{false}, ErrSignature},
		{"unsigned", bare, RequireSignature, []bool{true}, ErrUnsigned},
		{"unsigned allowed", bare, AllowUnsigned, nil, nil},
		{"changed image", parse("<user>123", "<user>124"), RequireSignature, []bool{true}, ErrSignature},
		{"changed configuration", parse("x86_64", "i386"), RequireSignature, []bool{true}, ErrSignature},
		{"space within", parse("<image><name>", "<image> <name>"), RequireSignature, []bool{true}, ErrSignature},
		{"space between", parse("</machine_configuration><image>", "</machine_configuration>\n<image>"), RequireSignature, []bool{true}, nil},
		{"changed outside", parse("<release>0", "<release>1"), RequireSignature, []bool{true}, nil},
		{"signature of a word", parse(signature, "<signature>00</signature>"), RequireSignature, []bool{true}, ErrSignature},
	}
	for _, test := range tests {
		keys := slices.Collect(func(yield func(k *rsaPublicKey) bool) {
			for _, signer := range test.keys {
				if k := cloud; !yield(map[bool]*rsaPublicKey{true: user, false: k}[signer]) {
					return
				}
			}
		})
		if err := test.manifest.Verify(test.policy, keys...); !errors.Is(err, test.want) {
			t.Errorf("%s: want %v, have %v", test.name, test.want, err)
		}
	}
}

// Whatever is wrong with a wrapped key, the error is the same.
func TestKeysGiveNothingAway(t *testing.T) {
	good, err := wrap(nil, &cloudID().key.PublicKey, testKey, testIV)
	if err != nil {
		t.Fatal(err)
	}
	other, err := wrap(nil, &strangerID().key.PublicKey, testKey, testIV)
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) []byte { return encryptText(t, s) }
	for name, w := range map[string]Wrapped{
		"another's":      other,
		"another's IV":   {good.Key, other.IV},
		"empty":          {},
		"no IV":          {Key: good.Key},
		"too long":       {append(slices.Clone(good.Key), 0), good.IV},
		"too short":      {good.Key[1:], good.IV},
		"flipped":        {append([]byte{good.Key[0] ^ 1}, good.Key[1:]...), good.IV},
		"not hex":        {text(strings.Repeat("g", 32)), good.IV},
		"short text":     {text(strings.Repeat("a", 31)), good.IV},
		"long text":      {text(strings.Repeat("a", 33)), good.IV},
		"raw key":        {text(string(testKey)), good.IV},
		"above modulus":  {bytes.Repeat([]byte{0xff}, 256), good.IV},
		"not hex, as IV": {good.Key, text(strings.Repeat("\x00", 32))},
	} {
		if key, iv, err := (&Manifest{ForCloud: w}).Keys(cloudID().key); err != ErrKey || key != nil || iv != nil {
			t.Errorf("%s: %x, %x, %v", name, key, iv, err)
		}
	}
	upper := Wrapped{text("ABCDEF00112233445566778899AABBCC"), good.IV}
	if _, _, err := (&Manifest{ForCloud: upper}).Keys(cloudID().key); err != nil {
		t.Errorf("upper-case digits: %v", err)
	}
}

func TestPin(t *testing.T) {
	if got := Pin([]byte("abc")); got != "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=" {
		t.Errorf("have %s", got)
	}
}
