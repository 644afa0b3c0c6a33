package gateway

import (
	"context"
	"errors"
	"sync"

	"adit/ike"
)

// conversations are the EAP sessions under way, by the engine's number.
type conversations struct {
	mu sync.Mutex
}

func (c *conversations) next(context.Context, ike.EAPRound) (*ike.EAPAnswer, error) {
	return nil, errors.New("EAP is not there yet")
}

func (c *conversations) end(uint64) {}
