package profile

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
)

// dict is a dictionary of a property list, in order.
type dict []pair

type pair struct {
	key   string
	value any // string, int, bool, []byte, []any or dict
}

// add appends a pair.
func (d *dict) add(key string, value any) { *d = append(*d, pair{key, value}) }

// plist writes a property list in XML.
func plist(d dict) []byte {
	var b bytes.Buffer
	b.WriteString(xml.Header + `<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">` + "\n<plist version=\"1.0\">\n")
	writeValue(&b, d)
	b.WriteString("</plist>\n")
	return b.Bytes()
}

func writeValue(b *bytes.Buffer, v any) {
	switch v := v.(type) {
	case dict:
		b.WriteString("<dict>\n")
		for _, p := range v {
			b.WriteString("<key>")
			_ = xml.EscapeText(b, []byte(p.key))
			b.WriteString("</key>\n")
			writeValue(b, p.value)
		}
		b.WriteString("</dict>\n")
	case []any:
		b.WriteString("<array>\n")
		for _, e := range v {
			writeValue(b, e)
		}
		b.WriteString("</array>\n")
	case string:
		b.WriteString("<string>")
		_ = xml.EscapeText(b, []byte(v))
		b.WriteString("</string>\n")
	case int:
		fmt.Fprintf(b, "<integer>%d</integer>\n", v)
	case bool:
		fmt.Fprintf(b, "<%t/>\n", v)
	case []byte:
		b.WriteString("<data>" + base64.StdEncoding.EncodeToString(v) + "</data>\n")
	default:
		panic(fmt.Sprintf("a property list has no %T", v))
	}
}
