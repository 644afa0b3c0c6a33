package suite_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"adit/suite"
)

func TestKey_NeverPrints(t *testing.T) {
	key := suite.Key("secret-secret-secret")
	holder := struct {
		Name string
		Key  suite.Key
		Ptr  *suite.Key
		Keys []suite.Key
		Map  map[string]suite.Key
	}{"x", key, &key, []suite.Key{key}, map[string]suite.Key{"k": key}}

	var shown []string
	for _, verb := range []string{"v", "+v", "#v", "s", "q", "x", "X", "# x", "d", "b", "o", "c", "U", "e", "t", "20s"} {
		for _, v := range []any{key, holder, []any{key}, errors.Join(fmt.Errorf("with %v", key))} {
			shown = append(shown, fmt.Sprintf("%"+verb, v))
		}
	}
	var text, jsonLog bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "key", key, "holder", holder, "group", slog.GroupValue(slog.Any("k", key)))
	slog.New(slog.NewJSONHandler(&jsonLog, nil)).Info("m", "key", key, "holder", holder)
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	shown = append(shown, text.String(), jsonLog.String(), string(encoded), key.String(), fmt.Sprint(key), fmt.Sprintln(key))
	for _, s := range shown {
		low := strings.ToLower(s)
		if strings.Contains(low, "secret") || strings.Contains(low, hex.EncodeToString([]byte("secret"))) ||
			strings.Contains(low, "115 101 99") || strings.Contains(low, "0x73, 0x65") {
			t.Errorf("a key shows: %q", s)
		}
	}
	for _, s := range []string{fmt.Sprintf("%x", key), text.String(), jsonLog.String(), string(encoded)} {
		if !strings.Contains(s, "[key]") {
			t.Errorf("no [key] in %q", s)
		}
	}
	key.Zero()
	if !bytes.Equal(key, make([]byte, 20)) {
		t.Error("not zeroed")
	}
	if key.Equal(suite.Key("x")) || !key.Equal(make(suite.Key, 20)) {
		t.Error("Equal is wrong")
	}
}
