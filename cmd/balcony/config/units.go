package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Off is the value of a limit of any type that was set to "off": no limit.
const Off = -1

// Bytes is a number of bytes, or Off. In the file it is a text such as "256KiB", "10KB" or "off", or a plain number.
type Bytes int64

// Count is a number of things, or Off. In the file it is a number or "off".
type Count int64

// Duration is a length of time, or Off. In the file it is a text such as "30s", "1h30m", "365d", "0" or "off".
type Duration time.Duration

// Override is the value of a key of a domain that stands for one of the whole server, as it is written there; empty to leave that.
type Override string

// UnmarshalText keeps a text, a number or a boolean.
func (o *Override) UnmarshalText(text []byte) error {
	*o = Override(text)
	return nil
}

func (o Override) duration() (d Duration, err error) {
	err = d.UnmarshalText([]byte(o))
	return d, err
}

// isBool reports whether it is a boolean, or leaves what the server has.
func (o Override) isBool() bool { return o == "" || o == "true" || o == "false" }

// choice is the boolean, or server where it is empty.
func (o Override) choice(server bool) bool {
	if o == "" {
		return server
	}
	return o == "true"
}

func (o Override) count() (c Count, err error) {
	err = c.UnmarshalText([]byte(o))
	return c, err
}

// byteUnits are the suffixes of Bytes, larger ones first so that printing finds the largest that divides.
var byteUnits = []struct {
	name string
	size int64
}{
	{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"B", 1},
}

// Int is the limit for comparisons: math.MaxInt when there is none.
func (b Bytes) Int() int { return limit(int64(b)) }

// Int is the limit for comparisons: math.MaxInt when there is none.
func (c Count) Int() int { return limit(int64(c)) }

// Std is the duration as package time has it; the longest there is when it is off.
func (d Duration) Std() time.Duration {
	if d == Off {
		return math.MaxInt64
	}
	return time.Duration(d)
}

func limit(n int64) int {
	if n == Off {
		return math.MaxInt
	}
	return int(n)
}

// UnmarshalText reads "off", a plain number of bytes, or a number with one of the units B, KB, KiB, MB, MiB, GB and GiB.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "off" {
		*b = Off
		return nil
	}
	number, size := s, int64(1)
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, size = strings.TrimSpace(n), u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/size {
		return fmt.Errorf("%q is not a size: write it like \"256KiB\", \"2MiB\" or \"off\"", s)
	}
	*b = Bytes(n * size)
	return nil
}

// MarshalText writes the size with the largest unit that divides it.
func (b Bytes) MarshalText() ([]byte, error) {
	if b == Off {
		return []byte("off"), nil
	}
	for _, u := range byteUnits {
		if int64(b) >= u.size && int64(b)%u.size == 0 {
			return fmt.Appendf(nil, "%d%s", int64(b)/u.size, u.name), nil
		}
	}
	return []byte("0B"), nil
}

// UnmarshalText reads a number or "off".
func (c *Count) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "off" {
		*c = Off
		return nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a number: write it like 64 or \"off\"", s)
	}
	*c = Count(n)
	return nil
}

// MarshalText writes the number or "off".
func (c Count) MarshalText() ([]byte, error) {
	if c == Off {
		return []byte("off"), nil
	}
	return strconv.AppendInt(nil, int64(c), 10), nil
}

// UnmarshalText reads "off", "0", days such as "365d", or what time.ParseDuration takes.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "off" {
		*d = Off
		return nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 64)
		if err == nil && n >= 0 && n <= int64(math.MaxInt64/(24*time.Hour)) {
			*d = Duration(time.Duration(n) * 24 * time.Hour)
			return nil
		}
	} else if v, err := time.ParseDuration(s); err == nil && v >= 0 {
		*d = Duration(v)
		return nil
	}
	return fmt.Errorf("%q is not a duration: write it like \"30s\", \"15m\", \"365d\" or \"off\"", s)
}

// MarshalText writes the duration in whole days, hours, minutes or seconds where that is exact.
func (d Duration) MarshalText() ([]byte, error) {
	const day = 24 * time.Hour
	v := time.Duration(d)
	switch {
	case d == Off:
		return []byte("off"), nil
	case v == 0:
		return []byte("0"), nil
	case v%day == 0:
		return fmt.Appendf(nil, "%dd", v/day), nil
	case v%time.Hour == 0:
		return fmt.Appendf(nil, "%dh", v/time.Hour), nil
	case v%time.Minute == 0:
		return fmt.Appendf(nil, "%dm", v/time.Minute), nil
	case v%time.Second == 0:
		return fmt.Appendf(nil, "%ds", v/time.Second), nil
	}
	return []byte(v.String()), nil
}
