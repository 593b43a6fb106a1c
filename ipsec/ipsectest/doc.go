// Package ipsectest helps test what uses or implements ipsec.Backend: Fake records SAs, fails and emits events on
// demand; Conform is what the fake and every real backend pass; Plugged waits for the link between two namespaces.
// Read fake.go first.
package ipsectest
