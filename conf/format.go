package conf

import "strings"

// Redacted is what [Section.Format] writes for a value that its callback withholds.
const Redacted = "[redacted]"

// Format writes the tree in the grammar of the file, so that parsing it again gives the same
// tree; lists are written as text with commas between the items. It contains whatever redact does
// not hold back by returning true; with a nil redact, all of it. A name that the grammar cannot
// express, which only VICI can carry, is written in quotes.
func (s *Section) Format(redact func(in *Section, v Value) bool) string {
	var b strings.Builder
	s.format(&b, "", redact)
	return b.String()
}

func (s *Section) format(b *strings.Builder, indent string, redact func(*Section, Value) bool) {
	for e := range s.All() {
		b.WriteString(indent)
		if e.Section != nil {
			b.WriteString(formatName(e.Section.Name))
			b.WriteString(" {\n")
			e.Section.format(b, indent+"  ", redact)
			b.WriteString(indent + "}\n")
			continue
		}
		text := e.Value.Text
		if e.Value.IsList {
			text = strings.Join(e.Value.List, ", ")
		}
		if redact != nil && redact(s, e.Value) {
			text = Redacted
		}
		b.WriteString(formatName(e.Value.Key))
		b.WriteString(" = ")
		b.WriteString(formatText(text))
		b.WriteByte('\n')
	}
}

func formatName(name string) string {
	if isName(name) {
		return name
	}
	return formatQuoted(name)
}

// formatText writes a value, in quotes where it would not be read back as it is.
func formatText(text string) string {
	if text == "" || strings.ContainsAny(text, "#}\"\r\n\t\x00") || strings.Join(strings.Fields(text), " ") != text {
		return formatQuoted(text)
	}
	return text
}

func formatQuoted(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(text) + `"`
}
