package ipsec

import "log/slog"

// Secret is key material or a pre-shared key. However it is printed, marshalled or logged it shows as ***.
type Secret []byte

const redacted = "***"

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
