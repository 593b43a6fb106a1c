package terminal

import (
	"context"
	"io"

	"culvert/cmd/culvert/internal/control"
)

// Remote carries requests to the daemon. The error is a *control.CommandError when the daemon refused.
type Remote func(ctx context.Context, r *control.Request, out io.Writer) error
