package template

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

func dateFunctions() map[string]builtin {
	return map[string]builtin{
		"utcnow": {least: 0, most: 1, eval: func(s *scope, a []any) (any, error) {
			if !s.defaults {
				return nil, errors.New("it can be used only in the default value of a parameter")
			}
			layout := ""
			if len(a) == 1 {
				var err error
				if layout, err = text(a, 0); err != nil {
					return nil, err
				}
			}
			if layout == "" {
				return s.d.env.Now.UTC().Format("20060102T150405Z"), nil
			}
			return formatTime(s.d.env.Now.UTC(), layout)
		}},
		"newguid": {eval: func(s *scope, _ []any) (any, error) {
			if !s.defaults {
				return nil, errors.New("it can be used only in the default value of a parameter")
			}
			return s.d.env.NewGUID(), nil
		}},
		"datetimeadd": {least: 2, most: 3, eval: func(_ *scope, a []any) (any, error) {
			base, err := timeOf(a, 0)
			if err != nil {
				return nil, err
			}
			d, err := text(a, 1)
			if err != nil {
				return nil, err
			}
			if base, err = addDuration(base, d); err != nil || len(a) < 3 {
				return base.Format("2006-01-02T15:04:05Z"), err
			}
			layout, err := text(a, 2)
			if err != nil {
				return nil, err
			}
			return formatTime(base, layout)
		}},
		"datetimefromepoch": {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) {
			n, err := integer(a, 0)
			if err != nil || n < 0 || n > 253402300799 {
				return nil, errors.Join(err, errors.New("the number is not of seconds up to the year 9999"))
			}
			return time.Unix(n, 0).UTC().Format("2006-01-02T15:04:05Z"), nil
		}},
		"datetimetoepoch": {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) {
			t, err := timeOf(a, 0)
			return t.Unix(), err
		}},
	}
}

func timeOf(args []any, i int) (time.Time, error) {
	s, err := text(args, i)
	if err != nil {
		return time.Time{}, err
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "20060102T150405Z", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("the text is not a date and time in ISO 8601")
}

// addDuration adds an ISO 8601 duration such as P1Y2M10DT2H30M or -PT5M.
func addDuration(t time.Time, s string) (time.Time, error) {
	malformed := fmt.Errorf("'%s' is not a duration in ISO 8601, such as 'P3Y', '-P9D' or 'PT1H'", clip(s))
	sign := 1
	rest, negative := strings.CutPrefix(s, "-")
	if negative {
		sign = -1
	}
	rest, ok := strings.CutPrefix(rest, "P")
	if !ok || rest == "" || strings.HasSuffix(rest, "T") {
		return t, malformed
	}
	units, clock := "YMWD", false
	for rest != "" {
		if !clock && rest[0] == 'T' {
			units, clock, rest = "HMS", true, rest[1:]
			continue
		}
		end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if end < 1 {
			return t, malformed
		}
		n, err := strconv.Atoi(rest[:end])
		at := strings.IndexByte(units, rest[end])
		if err != nil || n > 1_000_000_000 || at < 0 {
			return t, malformed
		}
		n *= sign
		switch unit := rest[end]; {
		case unit == 'Y':
			t = t.AddDate(n, 0, 0)
		case unit == 'M' && !clock:
			t = t.AddDate(0, n, 0)
		case unit == 'W':
			t = t.AddDate(0, 0, 7*n)
		case unit == 'D':
			t = t.AddDate(0, 0, n)
		default:
			length := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second}[unit]
			if time.Duration(max(n, -n)) > math.MaxInt64/length {
				return t, malformed
			}
			t = t.Add(time.Duration(n) * length)
		}
		units, rest = units[at+1:], rest[end+1:]
	}
	if t.Year() < 1 || t.Year() > 9999 {
		return t, errors.New("the result is not between the years 1 and 9999")
	}
	return t, nil
}

// standardTime is a one-letter format of .NET that depends on no culture, as a
// layout; empty for others.
func standardTime(layout string) string {
	return map[string]string{
		"d": "01/02/2006", "o": "2006-01-02T15:04:05.0000000Z", "O": "2006-01-02T15:04:05.0000000Z",
		"r": "Mon, 02 Jan 2006 15:04:05 GMT", "R": "Mon, 02 Jan 2006 15:04:05 GMT", "s": "2006-01-02T15:04:05",
		"u": "2006-01-02 15:04:05Z",
	}[layout]
}

// formatTime writes a time in UTC by a format of .NET.
func formatTime(t time.Time, layout string) (any, error) {
	if std := standardTime(layout); std != "" {
		return t.Format(std), nil
	}
	if len(layout) < 2 || len(layout) > 128 {
		return nil, fmt.Errorf("the format '%s' is not supported", clip(layout))
	}
	var b strings.Builder
	for rest := layout; rest != ""; {
		c := rest[0]
		n := 1
		for n < len(rest) && rest[n] == c {
			n++
		}
		switch {
		case c == '\'' || c == '"':
			end := strings.IndexByte(rest[1:], c)
			if end < 0 {
				return nil, errors.New("the format has a quote without its end")
			}
			b.WriteString(rest[1 : 1+end])
			rest = rest[end+2:]
			continue
		case c == '\\' && len(rest) > 1:
			_, size := utf8.DecodeRuneInString(rest[1:])
			b.WriteString(rest[1 : 1+size])
			rest = rest[1+size:]
			continue
		case c == '%':
			rest = rest[1:]
			continue
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			part, ok := timePart(t, c, n)
			if !ok {
				return nil, fmt.Errorf("the format '%s' is not supported", clip(layout))
			}
			b.WriteString(part)
		default:
			b.WriteString(rest[:n])
		}
		rest = rest[n:]
	}
	return b.String(), nil
}

// timePart is a run of n times the letter c in a format.
func timePart(t time.Time, c byte, n int) (string, bool) {
	number := func(v, most int) (string, bool) { return fmt.Sprintf("%0*d", n, v), n <= most }
	switch c {
	case 'y':
		if n <= 2 {
			return fmt.Sprintf("%0*d", n, t.Year()%100), true
		}
		return number(t.Year(), 5)
	case 'M':
		if n == 3 {
			return t.Format("Jan"), true
		}
		if n == 4 {
			return t.Format("January"), true
		}
		return number(int(t.Month()), 2)
	case 'd':
		if n == 3 {
			return t.Format("Mon"), true
		}
		if n == 4 {
			return t.Format("Monday"), true
		}
		return number(t.Day(), 2)
	case 'H':
		return number(t.Hour(), 2)
	case 'h':
		return number((t.Hour()+11)%12+1, 2)
	case 'm':
		return number(t.Minute(), 2)
	case 's':
		return number(t.Second(), 2)
	case 'f':
		return fmt.Sprintf("%09d", t.Nanosecond())[:min(n, 7)], n <= 7
	case 't':
		return t.Format("PM")[:min(n, 2)], n <= 2
	case 'T':
		return "T", n == 1
	case 'K':
		return "Z", n == 1
	case 'Z':
		return "Z", n == 1
	case 'z':
		return []string{"+0", "+00", "+00:00"}[min(n, 3)-1], n <= 3
	}
	return "", false
}
