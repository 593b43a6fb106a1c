package aaa

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
)

// DefaultProfileName and EncryptionProfileName are the profiles that exist without being written.
const (
	DefaultProfileName    = "default"
	EncryptionProfileName = "default-encryption"
)

// anyService is the `service` of a secret that is good for every service.
const anyService = "any"

// Local is the Authenticator of the local secrets, profiles and pools. It answers at once. It is used by one goroutine.
type Local struct {
	cfg    Config
	log    *slog.Logger
	pools  *pools
	active []*login // in order of login
}

// login is one session that holds a Grant.
type login struct {
	user, profile, service, callerID, iface string
	local, remote                           netip.Addr
	leases                                  [2]*lease
	shared                                  bool // local is counted in pools.shared
	released                                bool
}

// NewLocal takes cfg as Reconfigure does. Log may be nil.
func NewLocal(cfg Config, log *slog.Logger) *Local {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Local{log: log, pools: newPools()}
	l.Reconfigure(cfg)
	return l
}

// Reconfigure replaces the database. Sessions and their addresses stay as they are until released; what is new applies
// to the next login. The maps of cfg must not be changed afterwards. Mistakes are logged, and refuse the logins they
// concern: see Config.Validate.
func (l *Local) Reconfigure(cfg Config) {
	if err := cfg.Validate(); err != nil {
		l.log.Warn("the user database has mistakes; logins that meet them are refused", "err", err)
	}
	profiles := make(map[string]Profile, len(cfg.Profiles)+2)
	profiles[DefaultProfileName] = Profile{Name: DefaultProfileName, UseIPv6: true, ChangeMSS: true}
	profiles[EncryptionProfileName] = Profile{Name: EncryptionProfileName, UseIPv6: true, ChangeMSS: true}
	for name, p := range cfg.Profiles {
		profiles[name] = p
	}
	cfg.Profiles = profiles
	l.cfg = cfg

	reserved := map[netip.Addr]string{}
	for name, p := range profiles {
		if p.Local.Addr.IsValid() {
			reserved[p.Local.Addr.Unmap()] = "local-address of profile " + name
		}
	}
	for name, s := range cfg.Secrets {
		if s.Local.Addr.IsValid() {
			reserved[s.Local.Addr.Unmap()] = "local-address of secret " + name
		}
		if s.Remote.Addr.IsValid() {
			reserved[s.Remote.Addr.Unmap()] = "remote-address of secret " + name
		}
	}
	l.pools.configure(cfg.Pools, reserved)
}

// profileName is the profile that a secret is served with.
func (c *Config) profileName(s Secret) string {
	switch {
	case s.Profile != "":
		return s.Profile
	case c.DefaultProfile != "":
		return c.DefaultProfile
	}
	return DefaultProfileName
}

// Validate lists what is wrong with the database, all of it, joined: names that lead nowhere and impossible ranges.
func (c Config) Validate() error {
	var errs []error
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	checkPool := func(where, pool string) {
		if pool != "" {
			if _, ok := c.Pools[pool]; !ok {
				report("%s names the pool %q, which does not exist", where, pool)
			}
		}
	}
	checkProfile := func(where, profile string) {
		if _, ok := c.Profiles[profile]; !ok && profile != "" && profile != DefaultProfileName && profile != EncryptionProfileName {
			report("%s names the profile %q, which does not exist", where, profile)
		}
	}
	for _, name := range sortedKeys(c.Pools) {
		p := c.Pools[name]
		checkPool("next-pool of pool "+name, p.Next)
		for _, r := range p.Ranges {
			if !(Range{r.First.Unmap(), r.Last.Unmap()}).valid() {
				report("pool %s: the range %v-%v is not two addresses of one family in ascending order", name, r.First, r.Last)
			}
		}
	}
	for _, name := range sortedKeys(c.Profiles) {
		p := c.Profiles[name]
		checkPool("local-address of profile "+name, p.Local.Pool)
		checkPool("remote-address of profile "+name, p.Remote.Pool)
	}
	for _, name := range sortedKeys(c.Secrets) {
		s := c.Secrets[name]
		checkProfile("profile of secret "+name, s.Profile)
		checkPool("local-address of secret "+name, s.Local.Pool)
		checkPool("remote-address of secret "+name, s.Remote.Pool)
	}
	checkProfile("default-profile", c.DefaultProfile)
	return errors.Join(errs...)
}

// decoy stands in for the password of a user that does not exist, so that the answer takes as long as any other.
const decoy Password = "no such password"

// Authenticate answers at once, as Authenticator says.
func (l *Local) Authenticate(req Request, done func(*Grant, *Reject)) {
	g, r := l.login(&req)
	done(g, r)
}

func (l *Local) login(req *Request) (*Grant, *Reject) {
	secret, known := l.lookup(req.User)
	password := secret.Password
	if !known {
		password = decoy
	}
	ok, err := verify(req, string(password))
	// Whoever does not know the password learns nothing about the user, not even whether it exists or is disabled.
	switch {
	case err != nil:
		return nil, &Reject{Code: AuthFailure, Text: fmt.Sprintf("user %s: %v", quote(req.User), err)}
	case !known:
		return nil, &Reject{Code: AuthFailure, Retry: true, Text: fmt.Sprintf("user %s: no such user: add it to [ppp.secret], or correct the name at the client", quote(req.User))}
	case !ok:
		return nil, &Reject{Code: AuthFailure, Retry: true, Text: fmt.Sprintf("user %s: wrong password: it differs from the one in [ppp.secret]", quote(req.User))}
	}

	refuse := func(format string, args ...any) (*Grant, *Reject) {
		return nil, &Reject{Code: AuthFailure, Text: fmt.Sprintf("user %s: ", quote(secret.Name)) + fmt.Sprintf(format, args...)}
	}
	if secret.Disabled {
		return nil, &Reject{Code: AccountDisabled, Text: fmt.Sprintf("user %s: disabled: enable the secret to let it in", quote(secret.Name))}
	}
	if secret.Service != "" && secret.Service != anyService && secret.Service != req.Service {
		return refuse("allowed for service %s only, came by %s: set the secret's service to %s or any",
			secret.Service, req.Service, req.Service)
	}
	if secret.CallerID != "" && !sameCaller(secret.CallerID, req.CallerID) {
		return refuse("allowed from caller-id %s only, came from %s: correct or empty the secret's caller-id",
			quote(secret.CallerID), quote(req.CallerID))
	}
	profileName := l.cfg.profileName(secret)
	profile, ok := l.cfg.Profiles[profileName]
	if !ok {
		return refuse("profile %s does not exist: add it, or set another on the secret", quote(profileName))
	}
	if profile.OnlyOne {
		if other := l.session(secret.Name); other != nil {
			return refuse("already connected from %s with address %v, and profile %s has only-one set",
				quote(other.callerID), other.remote, profileName)
		}
	}

	s := &login{user: secret.Name, profile: profileName, service: req.Service, callerID: req.CallerID}
	if text := l.assign(s, secret, profile); text != "" {
		l.giveBack(s)
		return refuse("%s", text)
	}
	s.iface = l.cfg.Bindings[secret.Name]
	if s.iface != "" && slices.ContainsFunc(l.active, func(o *login) bool { return o.iface == s.iface }) {
		s.iface = "" // the binding belongs to the user's first session
	}
	g := &Grant{
		User:           secret.Name,
		Profile:        profileName,
		Local:          s.local,
		Remote:         s.remote,
		DNS:            slices.Clone(profile.DNS),
		WINS:           slices.Clone(profile.WINS),
		Routes:         slices.Clone(secret.Routes),
		Encrypt:        profile.Encrypt,
		UseIPv6:        profile.UseIPv6,
		ChangeMSS:      profile.ChangeMSS,
		ARPProxy:       profile.ARPProxy,
		RateLimit:      profile.RateLimit,
		SessionTimeout: profile.SessionTimeout,
		IdleTimeout:    profile.IdleTimeout,
		OnUp:           profile.OnUp,
		OnDown:         profile.OnDown,
		Interface:      s.iface,
		Release:        func() { l.giveBack(s) },
	}
	if secret.RateLimit != "" {
		g.RateLimit = secret.RateLimit
	}
	if err := prove(g, req, string(secret.Password)); err != nil {
		l.giveBack(s)
		return refuse("%v", err)
	}
	l.active = append(l.active, s)
	return g, nil
}

// lookup finds the secret of a user as sent, or with its domain left out.
func (l *Local) lookup(user string) (Secret, bool) {
	for _, name := range []string{user, withoutDomain(user)} {
		if s, ok := l.cfg.Secrets[name]; ok {
			s.Name = name
			return s, true
		}
	}
	return Secret{}, false
}

func (l *Local) session(user string) *login {
	for _, s := range l.active {
		if s.user == user {
			return s
		}
	}
	return nil
}

// assign gives s its two addresses, or says why it cannot. What it took until then is in s.leases.
func (l *Local) assign(s *login, secret Secret, profile Profile) string {
	local, remote := profile.Local, profile.Remote
	if secret.Local != (Source{}) {
		local = secret.Local
	}
	if secret.Remote != (Source{}) {
		remote = secret.Remote
	}
	switch {
	case local.Addr.IsValid():
		s.local = local.Addr.Unmap() // shared by all who have this profile
		if holder := l.pools.taken[s.local]; holder != nil {
			return fmt.Sprintf("local-address %v is in use by user %s: choose another, or disconnect that user", s.local, quote(holder.owner))
		}
		l.pools.share(s.local)
		s.shared = true
	case local.Pool != "":
		if s.leases[0] = l.pools.take(local.Pool, s.user, leaseLocal); s.leases[0] == nil {
			return l.exhausted("local-address", local.Pool)
		}
		s.local = s.leases[0].addr
	default:
		return fmt.Sprintf("no local-address: set one on profile %s or on the secret", s.profile)
	}
	switch {
	case remote.Addr.IsValid():
		s.remote = remote.Addr.Unmap()
		if s.remote == s.local || l.pools.shared[s.remote] > 0 {
			return fmt.Sprintf("remote-address %v is an address of our own end of a link: choose another", s.remote)
		}
		got, holder := l.pools.takeStatic(s.remote, s.user, leaseRemote)
		if holder != nil {
			return fmt.Sprintf("remote-address %v is in use by user %s: disconnect that session, or give this one another address",
				s.remote, quote(holder.owner))
		}
		s.leases[1] = got
	case remote.Pool != "":
		if s.leases[1] = l.pools.take(remote.Pool, s.user, leaseRemote); s.leases[1] == nil {
			return l.exhausted("remote-address", remote.Pool)
		}
		s.remote = s.leases[1].addr
	default:
		return fmt.Sprintf("no remote-address: set one on profile %s or on the secret", s.profile)
	}
	return ""
}

// exhausted says why a pool gave nothing.
func (l *Local) exhausted(what, name string) string {
	if l.pools.byName[name] == nil {
		return fmt.Sprintf("%s names the pool %q, which does not exist: add it", what, name)
	}
	var names []string
	for q := range l.pools.chain(name) {
		names = append(names, q.name)
	}
	return fmt.Sprintf("%s: pool %s has no address left: widen its ranges or give it a next-pool", what, strings.Join(names, ", then "))
}

// giveBack ends what s holds. It does nothing the second time.
func (l *Local) giveBack(s *login) {
	if s.released {
		return
	}
	s.released = true
	if s.shared {
		l.pools.unshare(s.local)
	}
	for _, x := range s.leases {
		l.pools.release(x)
	}
	if i := slices.Index(l.active, s); i >= 0 {
		l.active = slices.Delete(l.active, i, i+1)
	}
}

var (
	errMethod   = errors.New("authentication by a method that is not known here")
	errResponse = errors.New("the response has a length that its method does not allow")
	errLANMan   = errors.New("the response has the LAN Manager field only, which is not accepted: configure the peer for MS-CHAPv2")
)

// verify checks the proof in req. An error says that no password could have made it right.
func verify(req *Request, password string) (bool, error) {
	switch req.Method {
	case PAP:
		return verifyPAP(req.Response, password), nil
	case CHAP:
		if len(req.Response) != 16 {
			return false, errResponse
		}
		return VerifyCHAP(req.ID, password, req.Challenge, req.Response), nil
	case MSCHAP1:
		if len(req.Response) == MSCHAPResponseLen && req.Response[48] != 1 {
			return false, errLANMan
		}
		ok, err := VerifyMSCHAP1(req.Challenge, req.Response, password)
		if err != nil {
			return false, errResponse
		}
		return ok, nil
	case MSCHAP2:
		ok, err := VerifyMSCHAP2(req.Challenge, req.Response, req.User, password)
		if err != nil {
			return false, errResponse
		}
		return ok, nil
	}
	return false, errMethod
}

// prove adds to g what an accepted MS-CHAP login earns: our own proof, and MPPE's keys.
func prove(g *Grant, req *Request, password string) (err error) {
	switch req.Method {
	case MSCHAP1:
		if g.MPPESend, err = MPPEKeys1(req.Challenge, password); err == nil {
			g.MPPERecv = slices.Clone(g.MPPESend)
		}
	case MSCHAP2:
		if g.AuthenticatorResponse, err = MSCHAP2AuthenticatorResponse(req.Challenge, req.Response, req.User, password); err == nil {
			g.MPPESend, g.MPPERecv, err = MPPEKeys2(req.Response, password)
		}
	}
	return err
}

// sameCaller compares caller ids, as addresses where both are: an IPv6 address has many spellings.
func sameCaller(a, b string) bool {
	if a == b {
		return true
	}
	x, err1 := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	return err1 == nil && err2 == nil && x.Unmap() == y.Unmap()
}

// quote makes what a peer sent fit for a log line.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
