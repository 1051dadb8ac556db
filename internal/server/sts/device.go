package sts

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/session"
	"github.com/podkey/podkey/internal/web"
)

// The page for device codes, by our own name and by Entra's.
const (
	devicePath      = "/devicelogin"
	devicePathEntra = "/common/oauth2/deviceauth"
)

// devicePoll is how many seconds clients wait between two questions.
const devicePoll = 5

// deviceAnswer is what a client is told that wants a person to sign in
// elsewhere.
type deviceAnswer struct {
	UserCode        string `json:"user_code"`
	DeviceCode      string `json:"device_code"`
	VerificationURI string `json:"verification_uri"`
	ExpiresIn       int    `json:"expires_in"`
	Interval        int    `json:"interval"`
	Message         string `json:"message"`
}

// deviceAnswerV1 is the same at the v1 endpoint, whose numbers are text.
type deviceAnswerV1 struct {
	UserCode        string `json:"user_code"`
	DeviceCode      string `json:"device_code"`
	VerificationURL string `json:"verification_url"`
	ExpiresIn       string `json:"expires_in"`
	Interval        string `json:"interval"`
	Message         string `json:"message"`
}

// devicecode serves the device authorization endpoint of version 1 or 2.
func (s *service) devicecode(version int) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		call := web.CallOf(r.Context())
		realm, err := s.realm(r)
		if err != nil {
			return err
		}
		f, err := readForm(r)
		if err != nil {
			return err
		}
		if f["client_id"] == "" {
			return errMissing("client_id")
		}
		c, err := s.findClient(r.Context(), realm, f["client_id"])
		if err != nil {
			return err
		}
		if !c.PublicClient {
			return errNotPublic(&c)
		}
		scope := f["scope"]
		if version == 1 {
			scope = v1Scope(f["resource"])
		}
		if scope == "" {
			return errMissing(map[int]string{1: "resource", 2: "scope"}[version])
		}
		if len(scope) > maxState {
			return errMalformed("The parameter 'scope' is longer than %d bytes.", maxState)
		}
		if _, err := parseUserScope(scope); err != nil {
			return err
		}
		if err := s.limits.devices.begin(call.RemoteAddr, s.now()); err != nil {
			return err
		}
		code, userCode, err := s.Sessions.NewDevice(r.Context(), session.Device{
			ClientID: c.AppID, TenantID: realm.ID, Scope: scope, Remote: call.RemoteAddr,
		})
		if err != nil {
			return err
		}
		uri := call.Names.Login + devicePath
		if call.Names == s.Azure {
			uri = call.Names.Login + devicePathEntra
		}
		// The person reads the message, and opens the page in a browser that
		// knows us by our own name alone: Azure's leads to Azure there.
		page := uri
		if call.Names == s.Azure {
			page = s.Own.Login + devicePath
		}
		message := fmt.Sprintf("To sign in, use a web browser to open the page %s and enter the code %s to authenticate.", page, userCode)
		life := int(session.DeviceLife / time.Second)
		if version == 1 {
			return web.WriteJSON(w, http.StatusOK, deviceAnswerV1{userCode, code, uri, fmt.Sprint(life), fmt.Sprint(devicePoll), message})
		}
		return web.WriteJSON(w, http.StatusOK, deviceAnswer{userCode, code, uri, life, devicePoll, message})
	}
}

// deviceSignIn is a visit of the page for device codes.
type deviceSignIn struct {
	code   string // as typed
	device session.Device
	client directory.Client
	realm  *realm
}

// devicePage serves the page on which a person types the code, signs in, sees
// what asks and from where, and agrees. A code in the address, with which a
// person comes back from an outside identity provider, is put into the field
// and no more: an address alone neither decides nor tells anything.
func (s *service) devicePage(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return s.askForCode(w, r, http.StatusOK, "")
	}
	f, err := s.readOwnForm(r)
	if err != nil {
		return err
	}
	return s.deviceStep(w, r, f)
}

// deviceStep goes on with a form.
func (s *service) deviceStep(w http.ResponseWriter, r *http.Request, f form) error {
	from := network(web.CallOf(r.Context()).RemoteAddr)
	now := s.now()
	if wait, ok := s.limits.code.take(from, now); !ok {
		w.Header().Set("Retry-After", fmt.Sprint(int(wait/time.Second)))
		return s.askForCode(w, r, http.StatusTooManyRequests, fmt.Sprintf("There were too many tries with a wrong code. Try again in %s.", wait))
	}
	d, err := s.findDevice(r, f["user_code"])
	if errors.Is(err, session.ErrUnknown) {
		return s.askForCode(w, r, http.StatusBadRequest, "This code is not known, or no longer. Check it, or start again where it was shown.")
	}
	if err != nil {
		return err
	}
	s.limits.code.giveBack(from, now)
	p, err := s.signedIn(r)
	if err != nil {
		return err
	}
	if p != nil && !d.realm.any() && p.user.TenantID != d.realm.ID {
		p = nil
	}
	switch f["action"] {
	case "code":
		if p == nil {
			return s.askDeviceToSignIn(w, r, d, http.StatusOK, "", "")
		}
		return s.askDeviceToContinue(w, r, d, p)
	case "other":
		return s.askDeviceToSignIn(w, r, d, http.StatusOK, "", "")
	case "signin":
		p, err := s.signInByForm(w, r, d.realm, &d.client, f)
		if e, ok := errors.AsType[*Error](err); ok {
			return s.askAgain(w, e, func(status int, problem string) error {
				return s.askDeviceToSignIn(w, r, d, status, f["username"], problem)
			})
		}
		if err != nil {
			return err
		}
		return s.askDeviceToContinue(w, r, d, p)
	case "cancel":
		return s.declineDevice(w, r, d, p)
	case "continue":
		if p == nil {
			return s.askDeviceToSignIn(w, r, d, http.StatusOK, "", "You are not signed in any more. Sign in again.")
		}
		return s.approveDevice(w, r, d, p)
	}
	return errMalformed("The form has no action that is known.")
}

// findDevice finds what a user code is about.
func (s *service) findDevice(r *http.Request, typed string) (*deviceSignIn, error) {
	device, err := s.Sessions.UserCode(r.Context(), typed)
	if err != nil {
		return nil, err
	}
	d := &deviceSignIn{device: device, realm: &realm{segment: "organizations"}}
	d.code, _ = session.CanonicalUserCode(typed)
	if device.TenantID != "" {
		t, ok, err := s.Directory.Tenant(r.Context(), device.TenantID)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, session.ErrUnknown
		}
		d.realm = &realm{Tenant: t, segment: t.ID}
	}
	d.client, err = s.findClient(r.Context(), d.realm, device.ClientID)
	return d, err
}

// operationDevice is what audit lines call a person's decision about a device
// code.
const operationDevice = "DeviceCodeApprove"

// declineDevice refuses the device its token. p is nil if nobody has signed
// in. The line comes first, as for [service.approveDevice]: polls are quiet
// about what was declined, as it has a line already. Of two decisions at the
// same moment both have one, and the first is made.
func (s *service) declineDevice(w http.ResponseWriter, r *http.Request, d *deviceSignIn, p *person) error {
	who := audit.Principal{AppID: d.client.AppID, TenantID: d.client.TenantID, Name: d.client.DisplayName}
	if p != nil {
		who = personal(&p.user, d.client.AppID)
	}
	err := s.Audit.Write(r.Context(), audit.Record{
		Plane: "login", Operation: operationDevice, Object: d.client.AppID, Decision: audit.Deny,
		Reason: "declined on the page; asked for from " + d.device.Remote, Principal: who,
	})
	if err != nil {
		return err
	}
	if err := s.Sessions.Decide(r.Context(), d.code, nil); errors.Is(err, session.ErrUnknown) {
		return s.askForCode(w, r, http.StatusBadRequest, "This code is not known, or no longer. Start again where it was shown.")
	} else if err != nil {
		return err
	}
	return s.show(w, r, http.StatusOK, "message.html", &page{
		Title: "Sign-in declined", Lines: []string{d.client.DisplayName + " was not signed in. You can close this window."},
	})
}

// approveDevice lets the device have its token.
func (s *service) approveDevice(w http.ResponseWriter, r *http.Request, d *deviceSignIn, p *person) error {
	g := p.grant
	g.ClientID, g.Scope = d.client.AppID, d.device.Scope
	err := s.Audit.Write(r.Context(), audit.Record{
		Plane: "login", Operation: operationDevice, Object: d.client.AppID, Decision: audit.Allow,
		Reason: "asked for from " + d.device.Remote, Via: "deviceCode/" + g.SignInID, Principal: personal(&p.user, d.client.AppID),
	})
	if err != nil {
		return err
	}
	if err := s.Sessions.Decide(r.Context(), d.code, &g); errors.Is(err, session.ErrUnknown) {
		return s.askForCode(w, r, http.StatusBadRequest, "This code is not known, or no longer. Start again where it was shown.")
	} else if err != nil {
		return err
	}
	return s.show(w, r, http.StatusOK, "message.html", &page{
		Title: "Signed in", Lines: []string{
			"You have signed in to " + d.client.DisplayName + " as " + p.user.UserPrincipalName + ".",
			"You can close this window and go back to your device or command line.",
		},
	})
}

func (s *service) askForCode(w http.ResponseWriter, r *http.Request, status int, problem string) error {
	typed, _ := session.CanonicalUserCode(r.URL.Query().Get("user_code"))
	return s.show(w, r, status, "code.html", &page{
		Title: "Enter code", Problem: problem, Typed: typed, Action: r.URL.EscapedPath(), CSRF: s.csrf(w, r),
	})
}

func (s *service) askDeviceToSignIn(w http.ResponseWriter, r *http.Request, d *deviceSignIn, status int, userName, problem string) error {
	return s.showSignIn(w, r, status, &page{
		Problem: problem, Client: d.client.DisplayName, UserName: userName, Action: r.URL.EscapedPath(), UserCode: d.code,
	}, devicePath+"?"+url.Values{"user_code": {d.code}}.Encode())
}

func (s *service) askDeviceToContinue(w http.ResponseWriter, r *http.Request, d *deviceSignIn, p *person) error {
	return s.show(w, r, http.StatusOK, "confirm.html", &page{
		Title: "Sign in to another device?", Client: d.client.DisplayName, Resource: agreedResource(r, d.device.Scope),
		UserName: p.user.UserPrincipalName, DisplayName: p.user.DisplayName,
		Action: r.URL.EscapedPath(), CSRF: s.csrf(w, r), UserCode: d.code,
		Device: &devicePage{Code: d.code, Remote: d.device.Remote, Time: clock(d.device.Created)},
	})
}
