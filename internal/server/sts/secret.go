package sts

// bySecret authenticates a client by a secret. Which part of the answer is
// wrong is known to the caller anyway (the client exists, the secret is
// wrong), as in Entra; the comparison itself is in constant time.
func (x *exchange) bySecret(text string) (proof, error) {
	s, ok, err := x.Directory.VerifySecret(x.ctx, &x.client, text)
	if err != nil {
		return proof{}, err
	}
	switch {
	case !ok:
		return proof{}, errWrongSecret(&x.client).because("none of the client's %d secrets is the one presented", len(x.client.Secrets))
	case !x.now.Before(s.End):
		return proof{}, errSecretExpired(&x.client).because("secret %s expired at %s", s.KeyID, isoTime(s.End))
	case x.now.Before(s.Start):
		return proof{}, errWrongSecret(&x.client).because("secret %s is not valid before %s", s.KeyID, isoTime(s.Start))
	}
	return proof{class: "1", via: "secret/" + s.KeyID}, nil
}
