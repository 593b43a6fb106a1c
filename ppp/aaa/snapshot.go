package aaa

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sort"
)

// Snapshot is what `/ip pool used print` and the owner of the sessions read.
type Snapshot struct {
	Pools  []PoolUsage // by name
	Leases []Lease     // by pool, then address
	Active []Active    // in order of login
}

// PoolUsage is one configured pool.
type PoolUsage struct {
	Name string
	Next string
	Size uint64 // addresses, at most the largest uint64
	Used int    // of them, those in use, through whichever pool
}

// Lease is an address in use. Pool is empty when a secret gives the address itself.
type Lease struct {
	Pool  string
	Addr  netip.Addr
	Owner string // user
	Local bool   // our end of the owner's link
}

// Active is a session that holds a Grant.
type Active struct {
	User, Profile, Service, CallerID string
	Local, Remote                    netip.Addr
	Interface                        string // its static binding, or empty
}

// Snapshot copies the state.
func (l *Local) Snapshot() Snapshot {
	var s Snapshot
	for _, name := range sortedKeys(l.pools.byName) {
		q := l.pools.byName[name]
		u := PoolUsage{Name: name, Next: q.next, Size: q.size()}
		for addr := range l.pools.taken {
			if q.contains(addr) {
				u.Used++
			}
		}
		s.Pools = append(s.Pools, u)
	}
	for _, x := range l.pools.taken {
		s.Leases = append(s.Leases, Lease{Pool: x.pool, Addr: x.addr, Owner: x.owner, Local: x.kind == leaseLocal})
	}
	sort.Slice(s.Leases, func(i, j int) bool {
		a, b := s.Leases[i], s.Leases[j]
		return cmp.Or(cmp.Compare(a.Pool, b.Pool), a.Addr.Compare(b.Addr)) < 0
	})
	for _, a := range l.active {
		s.Active = append(s.Active, Active{a.user, a.profile, a.service, a.callerID, a.local, a.remote, a.iface})
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
