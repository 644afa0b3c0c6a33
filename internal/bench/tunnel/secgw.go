package tunnel

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"adit/interop/lab"
)

// findSecgw looks for DPDK's example: Debian has its source only.
func findSecgw(_ context.Context, o *Options) (string, error) {
	for _, name := range []string{o.Secgw, "dpdk-ipsec-secgw", "ipsec-secgw"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			o.Secgw = path
			return "ipsec-secgw (" + path + ")", nil
		}
	}
	return "", fmt.Errorf("%w: dpdk-ipsec-secgw (an example in DPDK's source; name a program with --secgw)", errMissing)
}

func startSecgw(context.Context, *lab.Lab, *Options) (*running, error) {
	return nil, errors.New("not written yet")
}
