package issuer

import "strings"

// isLabel reports whether s is a DNS-1123 label, as namespaces are.
func isLabel(s string) bool { return len(s) <= 63 && isPart(s) }

// isSubdomain reports whether s is a DNS-1123 subdomain, as names of service
// accounts and pods are. Kubernetes does not bound its parts.
func isSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if !isPart(part) {
			return false
		}
	}
	return true
}

func isPart(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
