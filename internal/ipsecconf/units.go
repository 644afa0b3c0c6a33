package ipsecconf

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// limitTime is the longest time that is read: a hundred years.
const limitTime = 100 * 365 * 24 * time.Hour

// seconds reads a time of ipsec.conf: a number, of seconds or with the unit s, m, h,
// d or w; Libreswan has ms and us, too.
func seconds(text string) (time.Duration, error) {
	units := []struct {
		suffix string
		unit   time.Duration
	}{{"ms", time.Millisecond}, {"us", time.Microsecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour}}
	number, unit := strings.ToLower(strings.TrimSpace(text)), time.Second
	for _, u := range units {
		if n, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = n, u.unit
			break
		}
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || f < 0 || math.IsNaN(f) || f*float64(unit) > float64(limitTime) {
		return 0, fmt.Errorf("%q is no time such as 90, 3m or 8h", clip(text))
	}
	return time.Duration(f * float64(unit)), nil
}

// span writes a time in the largest unit that fits, as swanctl.conf has it.
func span(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case s == 0:
		return "0"
	case s%(24*3600) == 0:
		return strconv.FormatInt(s/(24*3600), 10) + "d"
	case s%3600 == 0:
		return strconv.FormatInt(s/3600, 10) + "h"
	case s%60 == 0:
		return strconv.FormatInt(s/60, 10) + "m"
	}
	return strconv.FormatInt(s, 10) + "s"
}

// percent reads rekeyfuzz.
func percent(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), "%"))
	if err != nil || n < 0 || n > 10_000 {
		return 0, fmt.Errorf("%q is no percentage such as 100%%", clip(text))
	}
	return n, nil
}

// count reads a number of bytes or packets; Libreswan's have units.
func count(text string) (uint64, error) {
	number, factor := strings.TrimSpace(text), uint64(1)
	lower := strings.ToLower(number)
	for i, unit := range []string{"k", "m", "g", "t"} {
		for _, suffix := range []string{unit + "ib", unit + "b", unit + "i", unit} {
			if n, ok := strings.CutSuffix(lower, suffix); ok {
				lower, factor = n, 1<<(10*(i+1))
				break
			}
		}
		if factor > 1 {
			break
		}
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(lower), "b"), 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("%q is no number", clip(text))
	}
	return n * factor, nil
}

// yes reads a boolean in any of the spellings that the two programs take.
func yes(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "yes", "y", "true", "1", "on", "insist", "force", "enabled":
		return true, nil
	case "no", "n", "false", "0", "off", "never", "disabled":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no", clip(text))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
