package token

import (
	"context"
	"net"
)

// Dial connects to a host at one of its permitted addresses, as for an
// issuer's documents: for others who go where a stranger sends them. An
// address that is not permitted is an [AddressError].
func (f *Foreign) Dial(ctx context.Context, network, hostPort string) (net.Conn, error) {
	return f.dial(ctx, network, hostPort)
}
