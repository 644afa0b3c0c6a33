package suite

import (
	"fmt"
	"strings"

	"adit/suite/gcm"
)

// SetAESGCM chooses how AES-GCM is computed by ciphers made from now on: "auto" takes
// the fastest way that the machine has, "go" Go's own code; else a name of AESGCM's.
// It is for the start of a program.
func SetAESGCM(name string) error {
	all := gcm.Implementations()
	names := []string{"auto"}
	for _, i := range all {
		if name == i.String() || name == "auto" {
			gcm.Use(i)
			return nil
		}
		names = append(names, i.String())
	}
	return fmt.Errorf("suite: AES-GCM by %q: this machine has %s", name, strings.Join(names, ", "))
}

// AESGCM names the code by which AES-GCM is computed: "vaes-avx512", "vaes-avx2" or "go".
func AESGCM() string { return gcm.InUse().String() }
