package bundle

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ParseManifest reads a manifest of at most MaxManifestSize bytes and checks every element: none twice, none unknown, none
// missing that the format requires, and a part list that is in order and holds plain names. Document type definitions, and with
// them entities, are refused. All errors wrap ErrManifest and name the element. The signature is Verify's business.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > MaxManifestSize {
		return nil, fmt.Errorf("%w: %d bytes, more than the %d allowed", ErrManifest, len(data), MaxManifestSize)
	}
	p := &parser{data: data, decoder: xml.NewDecoder(bytes.NewReader(data)), manifest: new(Manifest)}
	if err := p.document(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return p.manifest, nil
}

// parser walks the document once, element by element, so that a hostile manifest costs no more memory than its own size.
type parser struct {
	data     []byte
	decoder  *xml.Decoder
	manifest *Manifest

	configuration, image []byte // the two signed elements, as written
	partCount            int64
	names                map[string]bool // part names seen
}

// field is one child that an element may have.
type field struct {
	read func(xml.StartElement) error
	need bool // its absence is an error
	many bool // it may repeat
}

type fields map[string]field

func (p *parser) document() error {
	done := false
	for {
		token, err := p.decoder.Token()
		if errors.Is(err, io.EOF) && done {
			return p.finish()
		}
		if err != nil {
			return notXML(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if done || t.Name.Local != "manifest" {
				return fmt.Errorf("element <%s> where one <manifest> is expected", t.Name.Local)
			}
			if err := p.readManifest(t); err != nil {
				return err
			}
			done = true
		default:
			if err := p.skip(token); err != nil {
				return err
			}
		}
	}
}

// skip passes over what carries no meaning between elements, and refuses the rest.
func (p *parser) skip(token xml.Token) error {
	switch t := token.(type) {
	case xml.Comment:
		return nil
	case xml.ProcInst:
		if t.Target == "xml" {
			return nil
		}
		return fmt.Errorf("processing instruction %q", t.Target)
	case xml.Directive:
		return errors.New("document type definitions are not allowed")
	case xml.CharData:
		if len(bytes.TrimSpace(t)) > 0 {
			return fmt.Errorf("text %.40q between elements", t)
		}
	}
	return nil
}

// finish checks what only the whole document shows.
func (p *parser) finish() error {
	m := p.manifest
	m.signed = slices.Concat(p.configuration, p.image)
	if p.partCount != int64(len(m.Parts)) {
		return fmt.Errorf("parts: count says %d, %d are listed", p.partCount, len(m.Parts))
	}
	if int64(len(m.Parts)) > m.BundledSize {
		return fmt.Errorf("parts: %d parts can't make %d bytes", len(m.Parts), m.BundledSize)
	}
	if (len(m.ForUser.Key) == 0) != (len(m.ForUser.IV) == 0) {
		return errors.New("user_encrypted_key and user_encrypted_iv: one is empty, the other isn't")
	}
	return nil
}

// group reads an element without attributes: its children, by the table of those it may have.
func (p *parser) group(start xml.StartElement, children fields) error {
	if _, err := attributes(start); err != nil {
		return err
	}
	return p.children(start, children)
}

func (p *parser) children(start xml.StartElement, children fields) error {
	seen := make(map[string]bool, len(children))
	for {
		token, err := p.decoder.Token()
		if err != nil {
			return notXML(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if err := child(t, children, seen); err != nil {
				return fmt.Errorf("%s: %w", start.Name.Local, err)
			}
		case xml.EndElement:
			return children.complete(start.Name.Local, seen)
		default:
			if err := p.skip(token); err != nil {
				return fmt.Errorf("%s: %w", start.Name.Local, err)
			}
		}
	}
}

func child(t xml.StartElement, children fields, seen map[string]bool) error {
	name := t.Name.Local
	f, known := children[name]
	switch {
	case !known || t.Name.Space != "":
		return fmt.Errorf("unknown element <%s>", name)
	case seen[name] && !f.many:
		return fmt.Errorf("element <%s> twice", name)
	}
	seen[name] = true
	return f.read(t)
}

func (f fields) complete(parent string, seen map[string]bool) error {
	var missing []string
	for name, field := range f {
		if field.need && !seen[name] {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("%s: missing <%s>", parent, strings.Join(missing, ">, <"))
}

// text reads an element that holds text alone.
func (p *parser) text(start xml.StartElement) (string, error) {
	var text strings.Builder
	for {
		token, err := p.decoder.Token()
		if err != nil {
			return "", notXML(err)
		}
		switch t := token.(type) {
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			return text.String(), nil
		default:
			return "", fmt.Errorf("%s: holds more than text", start.Name.Local)
		}
	}
}

// attributes checks that an element has the attributes named, once each, and no other, and returns them in that order.
func attributes(t xml.StartElement, names ...string) ([]string, error) {
	values := make([]string, len(names))
	for i, name := range names {
		at := slices.IndexFunc(t.Attr, func(a xml.Attr) bool { return a.Name == xml.Name{Local: name} })
		if at < 0 {
			return nil, fmt.Errorf("%s: missing attribute %s", t.Name.Local, name)
		}
		values[i] = t.Attr[at].Value
	}
	if len(t.Attr) != len(names) {
		return nil, fmt.Errorf("%s: attribute unknown or twice", t.Name.Local)
	}
	return values, nil
}

func notXML(err error) error {
	var syntax *xml.SyntaxError
	if errors.Is(err, io.EOF) || errors.As(err, &syntax) && syntax.Msg == "unexpected EOF" {
		return errors.New("the document ends early")
	}
	return fmt.Errorf("not well-formed XML: %w", err)
}

func parseSize(s string, least int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > maxImageSize || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%.40q is not a size from %d to %d", s, least, int64(maxImageSize))
	}
	return n, nil
}

func parseDigest(s string) (sum [sha1.Size]byte, err error) {
	if len(s) != 2*sha1.Size {
		return sum, fmt.Errorf("%d characters where a SHA-1 has %d hexadecimal digits", len(s), 2*sha1.Size)
	}
	if _, err := hex.Decode(sum[:], []byte(s)); err != nil {
		return sum, errors.New("not hexadecimal")
	}
	return sum, nil
}

// parseRSA reads the hexadecimal form of what an RSA key made; 16384 bits are far above any key in use.
func parseRSA(s string) ([]byte, error) {
	if len(s) > 2*2048 {
		return nil, fmt.Errorf("%d digits, more than any RSA key makes", len(s))
	}
	raw, err := hex.DecodeString(s)
	if err != nil {
		return nil, errors.New("not hexadecimal")
	}
	return raw, nil
}
