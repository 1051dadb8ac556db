package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"
)

// answer is what the bare handler returns at a path: the same bytes as the
// server, headers included.
type answer struct {
	Path   string
	Status int
	Header http.Header
	Body   []byte

	// Signatures makes the handler verify an RS256 signature and make an ES256
	// one before it answers: what no token service can do without.
	Signatures bool
}

// bareHost is the bare handler's name.
const bareHost = "bare.localhost"

// bareMain is the bare handler's process: it reads its answers from standard
// input, prints address and certificate, and serves until it is killed.
func bareMain() {
	var answers []answer
	if err := json.NewDecoder(os.Stdin).Decode(&answers); err != nil {
		panic(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	signatures := signatureWork(key)
	mux := http.NewServeMux()
	for _, a := range answers {
		mux.HandleFunc(a.Path, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			if a.Signatures {
				signatures()
			}
			h := w.Header()
			for k, v := range a.Header {
				h[k] = v
			}
			w.WriteHeader(a.Status)
			w.Write(a.Body)
		})
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{bareHost}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]string{
		"addr": ln.Addr().String(), "ca": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	})
	s := &http.Server{Handler: mux, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	panic(s.ServeTLS(ln, "", ""))
}

// signatureWork returns what a token exchange costs in signatures alone, each
// over a thousand bytes: one RS256 verification with a key of 2048 bits, one
// ES256 signature.
func signatureWork(key *ecdsa.PrivateKey) func() {
	issuer, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	text := make([]byte, 1000)
	sum := sha256.Sum256(text)
	assertion, err := rsa.SignPKCS1v15(nil, issuer, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return func() {
		sum := sha256.Sum256(text)
		if err := rsa.VerifyPKCS1v15(&issuer.PublicKey, crypto.SHA256, sum[:], assertion); err != nil {
			panic(err)
		}
		sum = sha256.Sum256(text)
		if _, err := ecdsa.SignASN1(rand.Reader, key, sum[:]); err != nil {
			panic(err)
		}
	}
}

// bare is the running bare handler.
type bare struct {
	cmd   *exec.Cmd
	addr  string
	roots *x509.CertPool
}

func startBare(ctx context.Context, answers []answer) (*bare, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	in, err := json.Marshal(answers)
	if err != nil {
		return nil, err
	}
	b := &bare{cmd: exec.CommandContext(ctx, self, "bare"), roots: x509.NewCertPool()}
	b.cmd.Stdin, b.cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	var hello struct{ Addr, CA string }
	if err := json.NewDecoder(out).Decode(&hello); err != nil {
		return nil, fmt.Errorf("start the bare handler: %w", err)
	}
	b.addr = hello.Addr
	b.roots.AppendCertsFromPEM([]byte(hello.CA))
	return b, nil
}

func (b *bare) stop() {
	b.cmd.Process.Kill()
	b.cmd.Wait()
}
