package sidecar

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/podkey/podkey/internal/imds"
	"github.com/podkey/podkey/internal/text"
)

// How long a client should wait before it asks again, when the token service
// does not say, and within which bounds what it says is repeated.
const (
	pause    = 2 * time.Second
	maxPause = 5 * time.Minute
)

// explain turns a failed exchange into what the client is told and what the
// log is told.
//
// SDKs try again after 404, 410, 429 and 5xx, and not after other answers:
// so what repeating could help gets 429 or 503, and what somebody has to
// change gets 400 with the token service's own sentence, which names it.
func (s *Source) explain(err error, w *witness) (*imds.Error, string) {
	if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok && failed.RawResponse != nil {
		return answered(failed.RawResponse)
	}
	if w.tokenFile != nil {
		return unavailable("The service account token of the pod could not be read.", pause), w.tokenFile.Error()
	}
	cause := err
	if w.network != nil {
		cause = w.network
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](cause); ok {
		return unavailable("The certificate of the token service is not trusted by the proxy.", pause), cause.Error()
	}
	// The SDK's own transport to an identity binding leaves nothing with the
	// witness; what is not an answer is most often none there too.
	if w.network != nil || s.TokenProxy || errors.Is(err, context.DeadlineExceeded) {
		return unavailable("The token service could not be reached.", pause), cause.Error()
	}
	return &imds.Error{Status: http.StatusInternalServerError, Code: "server_error", Description: "The token could not be fetched. Try again."}, cause.Error()
}

// answered is explain for an answer of the token service.
func answered(r *http.Response) (*imds.Error, string) {
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err == nil {
		err = json.Unmarshal(b, &body)
	}
	said := redact(body.Description)
	if err != nil || said == "" {
		// A gateway's page, say: nothing of it is repeated.
		said = "The token service answered HTTP " + strconv.Itoa(r.StatusCode) + "."
	}
	wait := retryAfter(r.Header.Get("Retry-After"))
	switch {
	case r.StatusCode == http.StatusTooManyRequests:
		return &imds.Error{Status: http.StatusTooManyRequests, Code: "temporarily_unavailable", Description: said, RetryAfter: wait}, said
	case r.StatusCode == http.StatusRequestTimeout, r.StatusCode >= 500, body.Error == "temporarily_unavailable":
		return unavailable(said, wait), said
	}
	code := body.Error
	if !oauthCode.MatchString(code) {
		code = "invalid_request"
	}
	return invalid(code, said), said
}

// oauthCode is what an error code looks like; clients compare them.
var oauthCode = regexp.MustCompile(`^[a-z][a-z_]{0,63}$`)

// tokens are JSON Web Tokens and what is left of one that was cut short.
var tokens = regexp.MustCompile(`eyJ[0-9A-Za-z_-]{5,}(\.[0-9A-Za-z_-]*)*`)

// redact makes foreign text fit to be repeated: one line, no token in it.
func redact(s string) string {
	return text.Clip(tokens.ReplaceAllString(strings.Join(strings.Fields(s), " "), "[token]"), 2000)
}

// retryAfter reads the header of that name: seconds or a time.
func retryAfter(header string) time.Duration {
	wait := pause
	if n, err := strconv.Atoi(header); err == nil {
		wait = time.Duration(min(max(n, 1), int(maxPause/time.Second))) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = min(max(time.Until(at), time.Second), maxPause)
	}
	return wait
}

func invalid(code, description string) *imds.Error {
	return &imds.Error{Status: http.StatusBadRequest, Code: code, Description: description}
}

func unavailable(description string, wait time.Duration) *imds.Error {
	return &imds.Error{Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", Description: description, RetryAfter: wait}
}
