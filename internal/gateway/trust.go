package gateway

import (
	"context"
	"errors"

	"adit/ike"
)

// trust is what we prove ourselves with and whom we believe.
type trust struct{}

func (t *trust) sign(ike.SignAuth) (*ike.Signature, error) {
	return nil, errors.New("no private key")
}

func (t *trust) verify(context.Context, ike.VerifyAuth) (*ike.Verdict, error) {
	return nil, errors.New("no trusted key")
}
