package session_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/server/session"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/store/storetest"
)

// rig is the tables on a real store, with a clock that a test moves.
type rig struct {
	*session.Sessions
	t   *testing.T
	mu  sync.Mutex
	now time.Time
}

func start(t *testing.T) *rig {
	t.Helper()
	g := &rig{t: t, now: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
	storetest.New(t, "", func(s *store.Store) { g.Sessions = session.New(s, session.Options{Now: g.clock}) })
	return g
}

func (g *rig) clock() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now
}

func (g *rig) advance(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = g.now.Add(d)
}

func (g *rig) begin() string {
	g.t.Helper()
	return must(g.Start(g.t.Context(), grant))(g.t)
}

func (g *rig) rotate(token string) string {
	g.t.Helper()
	return must(g.Rotate(g.t.Context(), token))(g.t)
}

func (g *rig) refused(token string, want error) {
	g.t.Helper()
	if _, err := g.Rotate(g.t.Context(), token); !errors.Is(err, want) {
		g.t.Errorf("rotating: %v, want %v", err, want)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

var grant = session.Grant{TenantID: "t", UserID: "u", ClientID: "c", Scope: "r/.default", Stamp: "s", Methods: []string{"pwd"}, SignInID: "sid", Nonce: "n"}

func TestRefreshTokensRotate(t *testing.T) {
	t.Parallel()
	g := start(t)
	one := g.begin()
	if got := must(g.Refresh(t.Context(), one))(t); got.UserID != "u" || got.Nonce != "" {
		t.Errorf("grant %+v", got)
	}
	two := g.rotate(one)
	three := g.rotate(two)
	if one == two || two == three {
		t.Error("a token was answered with itself")
	}
	g.rotate(one) // the answer was lost, and the client asks again
	g.advance(time.Minute)
	g.rotate(three) // leaves the generation of two and three
	g.advance(2*time.Minute - time.Second)
	last := g.rotate(two)
	g.advance(time.Second)
	g.refused(two, session.ErrReused)
	for _, token := range []string{one, two, three, last} {
		g.refused(token, session.ErrUnknown)
	}
}

// A right password in a loop does not fill the store: the oldest sign-ins end.
func TestAttackEndlessSignIns(t *testing.T) {
	t.Parallel()
	g := start(t)
	other := grant
	other.UserID = "v"
	theirs := must(g.Start(t.Context(), other))(t)
	one, two := g.begin(), g.begin()
	for range 49 {
		g.begin()
	}
	g.refused(one, session.ErrUnknown)
	g.rotate(two)
	must(g.Rotate(t.Context(), theirs))(t)
}

// Nor do browsers and codes: those of others, and the latest, stay.
func TestAttackEndlessBrowsersAndCodes(t *testing.T) {
	t.Parallel()
	g := start(t)
	ctx := t.Context()
	signIn := func(user, before string) string {
		return must(g.SignIn(ctx, session.Browser{TenantID: "t", UserID: user, SignedIn: g.clock()}, before))(t)
	}
	signedIn := func(cookie string, want bool) {
		t.Helper()
		if _, ok, err := g.Browser(ctx, cookie); ok != want || err != nil {
			t.Errorf("signed in: %v %v, want %v", ok, err, want)
		}
	}
	theirs, one, two := signIn("v", ""), signIn("u", ""), signIn("u", "")
	// One browser in which somebody signs in and out again and again is one.
	cookie := ""
	for range 60 {
		cookie = signIn("u", cookie)
	}
	for range 60 {
		if err := g.SignOut(ctx, cookie); err != nil {
			t.Fatal(err)
		}
		cookie = signIn("u", "")
	}
	// Another user's browser that the person takes over does not count twice.
	cookie = signIn("u", signIn("v", cookie))
	signedIn(one, true)
	for range 48 {
		signIn("u", "")
	}
	signedIn(one, false)
	signedIn(two, true)
	signedIn(cookie, true)
	signedIn(theirs, true)
	signIn("u", "")
	signedIn(two, false)

	code := func(user string) string {
		c := session.Code{Grant: grant}
		c.UserID = user
		return must(g.NewCode(ctx, c))(t)
	}
	other, first, second := code("v"), code("u"), code("u")
	for range 98 {
		code("u")
	}
	must(g.Code(ctx, first))(t)
	last := code("u")
	if _, err := g.Code(ctx, first); !errors.Is(err, session.ErrUnknown) {
		t.Errorf("the first of too many codes: %v", err)
	}
	for _, c := range []string{other, second, last} {
		must(g.RedeemCode(ctx, c, true))(t)
	}
}

// The first refresh after the sign-in replaces the first token for good.
func TestFirstRefreshTokenIsSpentAtOnce(t *testing.T) {
	t.Parallel()
	g := start(t)
	one := g.begin()
	two := g.rotate(one)
	g.advance(2 * time.Minute)
	g.refused(one, session.ErrReused)
	g.refused(two, session.ErrUnknown)
}

// Several processes of az read one file, use what they read, and write what
// they get in any order. Whatever is the last in the file is good next time.
func TestRefreshInParallelLeavesGoodTokens(t *testing.T) {
	t.Parallel()
	g := start(t)
	file := g.rotate(g.begin())
	for round := range 3 {
		g.advance(time.Hour)
		got := make([]string, 16)
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				first, _ := g.Rotate(t.Context(), file)
				got[i], _ = g.Rotate(t.Context(), first)
				if i%2 == 0 {
					got[i] = first // an older answer is written later
				}
			})
		}
		wg.Wait()
		for _, token := range got {
			if _, err := g.Refresh(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		file = got[round]
	}
}

func TestAttackRefreshReuse(t *testing.T) {
	t.Parallel()
	for _, thiefFirst := range []bool{true, false} {
		g := start(t)
		stolen := g.rotate(g.begin())
		g.advance(time.Hour)
		first := g.rotate(stolen) // one of the two
		g.advance(time.Hour)
		if thiefFirst {
			first = g.rotate(first)
			g.advance(time.Hour)
		}
		g.refused(stolen, session.ErrReused) // the other one
		g.refused(first, session.ErrUnknown)
		g.refused(stolen, session.ErrUnknown)
	}
}

func TestAttackForgedRefreshToken(t *testing.T) {
	t.Parallel()
	g := start(t)
	token := g.begin()
	other := g.begin()
	for i, forged := range []string{
		"", "x", "pkr1_", token + "A", token[:len(token)-1], strings.TrimPrefix(token, "pkr1_"), "pkc1_" + token[5:],
		token[:30] + other[30:],                        // other MAC
		token[:5+21] + "AAAAAAg" + token[5+28:],        // other generation
		token[:len(token)-2] + "\r\n",                  // which decoders skip
		token[:20] + "\n" + token[20:len(token)-1],     // likewise
		strings.ToLower(token), strings.ToUpper(token), // not the same bytes
	} {
		if _, err := g.Refresh(t.Context(), forged); !errors.Is(err, session.ErrUnknown) {
			t.Errorf("%d: %v", i, err)
		}
		g.refused(forged, session.ErrUnknown)
	}
	g.rotate(token) // a forger cannot end a family
	g.rotate(other)
}

func TestRefreshExpires(t *testing.T) {
	t.Parallel()
	g := start(t)
	idle := g.begin()
	g.advance(24*24*time.Hour - time.Second)
	used := g.rotate(g.begin())
	g.rotate(idle)
	idle2 := g.begin()
	for range 10 {
		g.advance(24*24*time.Hour - time.Second)
		next, err := g.Rotate(t.Context(), used)
		if err != nil {
			if !errors.Is(err, session.ErrExpired) {
				t.Error(err)
			}
			break
		}
		used = next
	}
	g.refused(used, session.ErrExpired)
	g.refused(idle2, session.ErrExpired)
	third := g.begin()
	g.advance(24 * 24 * time.Hour)
	g.refused(third, session.ErrIdle)
	if err := g.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.refused(third, session.ErrUnknown)
}

func TestCodeIsRedeemedOnce(t *testing.T) {
	t.Parallel()
	g := start(t)
	ctx := t.Context()
	text := must(g.NewCode(ctx, session.Code{Grant: grant, RedirectURI: "http://localhost", Challenge: "c"}))(t)
	c := must(g.Code(ctx, text))(t)
	if c.Nonce != "n" || c.RedirectURI != "http://localhost" {
		t.Errorf("%+v", c)
	}
	refresh := must(g.RedeemCode(ctx, text, true))(t)
	g.rotate(refresh)
	// The second time ends what the first gave.
	if _, err := g.Code(ctx, text); !errors.Is(err, session.ErrReused) {
		t.Errorf("replay: %v", err)
	}
	g.refused(refresh, session.ErrUnknown)
	if _, err := g.RedeemCode(ctx, text, true); !errors.Is(err, session.ErrReused) {
		t.Errorf("replay: %v", err)
	}
	if _, err := g.Code(ctx, "pkc1_x"); !errors.Is(err, session.ErrUnknown) {
		t.Errorf("%v", err)
	}
	late := must(g.NewCode(ctx, session.Code{Grant: grant}))(t)
	g.advance(3 * time.Minute)
	if _, err := g.Code(ctx, late); !errors.Is(err, session.ErrExpired) {
		t.Errorf("late: %v", err)
	}
	if _, err := g.RedeemCode(ctx, late, true); !errors.Is(err, session.ErrExpired) {
		t.Errorf("late: %v", err)
	}
	g.advance(time.Hour)
	if err := g.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Code(ctx, text); !errors.Is(err, session.ErrUnknown) {
		t.Errorf("swept: %v", err)
	}
}

// Of many that redeem one code at the same moment, one gets something at
// most, and what it gets ends since the code was seen twice.
func TestAttackCodeRace(t *testing.T) {
	t.Parallel()
	g := start(t)
	text := must(g.NewCode(t.Context(), session.Code{Grant: grant}))(t)
	var mu sync.Mutex
	var got []string
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if r, err := g.RedeemCode(t.Context(), text, true); err == nil {
				mu.Lock()
				got = append(got, r)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(got) != 1 {
		t.Fatalf("%d redeemed it", len(got))
	}
	g.refused(got[0], session.ErrUnknown)
}

func TestDeviceCode(t *testing.T) {
	t.Parallel()
	g := start(t)
	ctx := t.Context()
	ask := func() (string, string) {
		code, user, err := g.NewDevice(ctx, session.Device{ClientID: "c", Scope: "r/.default", Remote: "192.0.2.1"})
		if err != nil {
			t.Fatal(err)
		}
		return code, user
	}
	state := func(code string, want error) {
		t.Helper()
		if _, _, err := g.DeviceCode(ctx, code); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	code, user := ask()
	if len(user) != 9 || strings.ContainsAny(user, "AEIOU0159") {
		t.Errorf("user code %q", user)
	}
	state(code, session.ErrPending)
	typed := " " + strings.ToLower(user[:4]) + "-" + user[4:]
	d := must(g.UserCode(ctx, typed))(t)
	if d.Remote != "192.0.2.1" || d.ClientID != "c" {
		t.Errorf("%+v", d)
	}
	if err := g.Decide(ctx, typed, &grant); err != nil {
		t.Fatal(err)
	}
	if err := g.Decide(ctx, typed, nil); !errors.Is(err, session.ErrUnknown) {
		t.Errorf("decided twice: %v", err)
	}
	if _, err := g.UserCode(ctx, user); !errors.Is(err, session.ErrUnknown) {
		t.Errorf("after the decision: %v", err)
	}
	state(code, nil)
	refresh := must(g.RedeemDevice(ctx, code, true))(t)
	g.rotate(refresh)
	state(code, session.ErrReused)
	g.refused(refresh, session.ErrUnknown)

	declined, user := ask()
	if err := g.Decide(ctx, user, nil); err != nil {
		t.Fatal(err)
	}
	state(declined, session.ErrDeclined)

	late, user := ask()
	g.advance(15 * time.Minute)
	state(late, session.ErrExpired)
	if _, err := g.UserCode(ctx, user); !errors.Is(err, session.ErrUnknown) {
		t.Errorf("late: %v", err)
	}
	if err := g.Decide(ctx, user, &grant); !errors.Is(err, session.ErrUnknown) {
		t.Errorf("late: %v", err)
	}
	state("pkd1_x", session.ErrUnknown)

	// One that was confirmed and never redeemed tells by whom, and remembers
	// that its client knows.
	late, user = ask()
	if err := g.Decide(ctx, user, &grant); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after  time.Duration
		want   error
		lapsed bool
	}{{0, nil, false}, {0, nil, false}, {15 * time.Minute, session.ErrExpired, false}, {0, session.ErrExpired, true}} {
		g.advance(c.after)
		d, by, err := g.DeviceCode(ctx, late)
		if !errors.Is(err, c.want) || d.Lapsed != c.lapsed || by.UserID != grant.UserID {
			t.Errorf("%v, %+v, %+v", err, d, by)
		}
		if err := g.LapseDevice(ctx, late); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.LapseDevice(ctx, "pkd1_x"); err != nil {
		t.Error(err)
	}
	g.advance(time.Hour)
	if err := g.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	state(code, session.ErrUnknown)
}

func TestBrowserSession(t *testing.T) {
	t.Parallel()
	g := start(t)
	ctx := t.Context()
	in := session.Browser{TenantID: "t", UserID: "u", SignedIn: g.clock(), SignInID: "sid"}
	one := must(g.SignIn(ctx, in, ""))(t)
	// Signing in again replaces the cookie: one that was planted opens nothing.
	two := must(g.SignIn(ctx, in, one))(t)
	for cookie, want := range map[string]bool{one: false, two: true, "": false, "pks1_": false, two + "x": false} {
		if _, ok, err := g.Browser(ctx, cookie); ok != want || err != nil {
			t.Errorf("%v %v, want %v", ok, err, want)
		}
	}
	g.advance(session.BrowserLife)
	if _, ok, _ := g.Browser(ctx, two); ok {
		t.Error("signed in for ever")
	}
	in.SignedIn = g.clock()
	three := must(g.SignIn(ctx, in, two))(t)
	if err := g.SignOut(ctx, three); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := g.Browser(ctx, three); ok {
		t.Error("signed in after signing out")
	}
}

func TestFlowIsTakenOnce(t *testing.T) {
	t.Parallel()
	g := start(t)
	ctx := t.Context()
	state := must(g.NewFlow(ctx, session.Flow{Nonce: "n", Return: "/devicelogin"}))(t)
	if f := must(g.TakeFlow(ctx, state))(t); f.Nonce != "n" {
		t.Errorf("%+v", f)
	}
	if _, err := g.TakeFlow(ctx, state); !errors.Is(err, session.ErrUnknown) {
		t.Errorf("%v", err)
	}
	state = must(g.NewFlow(ctx, session.Flow{}))(t)
	g.advance(10 * time.Minute)
	if _, err := g.TakeFlow(ctx, state); !errors.Is(err, session.ErrExpired) {
		t.Errorf("%v", err)
	}
}

func FuzzCanonicalUserCode(f *testing.F) {
	f.Add("BCDF-GHJKL")
	f.Add(" bcdfghjkl ")
	f.Add("ſ")
	f.Fuzz(func(t *testing.T, typed string) {
		code, ok := session.CanonicalUserCode(typed)
		if !ok {
			return
		}
		again, ok := session.CanonicalUserCode(code)
		if !ok || again != code || len(code) != 9 || strings.Trim(code, "BCDFGHJKLMNPQRSTVWXZ") != "" {
			t.Errorf("%q becomes %q, then %q", typed, code, again)
		}
	})
}
