package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool/l402"
	"github.com/openagentsinc/openagents-runtime/internal/wallet"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/ledger"
)

// walletConfig is what the environment says of the wallet, and of the tool that pays
// from it.
type walletConfig struct {
	Kind    string        `env:"RUNTIME_WALLET" envDefault:"none" validate:"oneof=none lnd local" help:"what l402.fetch pays from: lnd, a node; local, a ledger in a file for development; none, and the tool is not offered"`
	Network string        `env:"RUNTIME_WALLET_NETWORK" envDefault:"mainnet" validate:"oneof=mainnet testnet signet regtest" help:"where the node's money is; a local wallet is on regtest"`
	Timeout time.Duration `env:"RUNTIME_WALLET_TIMEOUT" envDefault:"30s" validate:"min=1s,max=10m" help:"how long a way to pay is looked for"`
	FeeSats int64         `env:"RUNTIME_WALLET_FEE_SATS" envDefault:"5" validate:"min=0,max=1000000" help:"most sats that a payment may cost besides its amount, or"`
	FeePPM  int64         `env:"RUNTIME_WALLET_FEE_PPM" envDefault:"10000" validate:"min=0,max=1000000" help:"so many millionths of the amount, when those are more"`

	LNDURL  string `env:"RUNTIME_LND_URL" validate:"required_if=Kind lnd,omitempty,url" help:"the node's REST API, https; its macaroon, in hex, is lnd=… in RUNTIME_TOOL_SECRETS"`
	LNDCert string `env:"RUNTIME_LND_CERTIFICATE" help:"file with the node's certificate in PEM, the only one that is taken; empty for those that the system trusts"`

	File   string `env:"RUNTIME_WALLET_FILE" help:"where a local wallet is kept; one process at a time may use it"`
	Listen string `env:"RUNTIME_WALLET_LISTEN" envDefault:"127.0.0.1:0" validate:"host:port" help:"where a local wallet answers LND's REST API, on this machine"`
	Sats   int64  `env:"RUNTIME_WALLET_SATS" envDefault:"1000000" validate:"min=1,max=2100000000000000" help:"what a new local wallet has"`

	Allow []string `env:"RUNTIME_L402_ALLOW" help:"the only hosts that l402.fetch reaches: names, addresses, *.suffix; empty for every public host"`
	Deny  []string `env:"RUNTIME_L402_DENY" help:"hosts that it never reaches"`
	Post  []string `env:"RUNTIME_L402_POST" help:"hosts that it may send a POST to; empty for none"`
}

// lndSecret is the name of the node's macaroon among the secrets of tools.
const lndSecret = "lnd"

// localWallet is a ledger and the server that answers for it.
type localWallet struct {
	ledger *ledger.Ledger
	server *http.Server
	addr   net.Addr
}

// wallet is what the process pays from; nil when there is none.
func (s *service) wallet() (wallet.Wallet, error) {
	c := s.c.Wallet
	lnd := wallet.LNDConfig{URL: c.LNDURL, Secrets: s.secrets, Provider: lndSecret, Network: bolt11.Network(c.Network)}
	switch c.Kind {
	case "none":
		return nil, nil
	case "lnd":
		if c.LNDCert != "" {
			var err error
			if lnd.Certificate, err = os.ReadFile(c.LNDCert); err != nil {
				return nil, fmt.Errorf("RUNTIME_LND_CERTIFICATE: %w", err)
			}
		}
		static, err := secret.ParseStatic(s.c.Tools.Secrets)
		if err != nil {
			return nil, fmt.Errorf("RUNTIME_TOOL_SECRETS: %w", err)
		}
		if _, err := hex.DecodeString(static[lndSecret]); err != nil || static[lndSecret] == "" {
			return nil, errors.New("RUNTIME_TOOL_SECRETS has no lnd=…; the node's macaroon, in hex, is needed to pay")
		}
	case "local":
		var err error
		if lnd.URL, lnd.Secrets, err = s.serveLedger(); err != nil {
			return nil, err
		}
		lnd.Network = bolt11.Regtest
	}
	w, err := wallet.NewLND(lnd)
	if err != nil {
		return nil, fmt.Errorf("RUNTIME_LND_URL: %w", err)
	}
	return w, nil
}

// serveLedger opens the local wallet and answers for it on this machine, to who has the
// key: the one that is configured, or a new one that only this process knows.
func (s *service) serveLedger() (url string, keys *secret.Store, _ error) {
	c := s.c.Wallet
	if c.File == "" {
		return "", nil, errors.New("RUNTIME_WALLET_FILE is not set; a local wallet is kept in it")
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", nil, err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", nil, fmt.Errorf("RUNTIME_WALLET_LISTEN: %s is not an address of this machine alone", c.Listen)
	}
	static, err := secret.ParseStatic(s.c.Tools.Secrets)
	if err != nil {
		return "", nil, fmt.Errorf("RUNTIME_TOOL_SECRETS: %w", err)
	}
	key := static[lndSecret]
	if key == "" {
		var fresh [32]byte
		if _, err := rand.Read(fresh[:]); err != nil {
			return "", nil, err
		}
		key = hex.EncodeToString(fresh[:])
	}
	if keys, err = secret.New(secret.Config{Static: map[string]string{lndSecret: key}, Register: s.know}); err != nil {
		return "", nil, err
	}
	l, err := ledger.Open(ledger.Config{Path: c.File, BalanceSats: c.Sats, Macaroon: key})
	if err != nil {
		return "", nil, fmt.Errorf("RUNTIME_WALLET_FILE: %w", err)
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("RUNTIME_WALLET_LISTEN: %w", err), l.Close())
	}
	s.local = &localWallet{
		ledger: l, addr: listener.Addr(),
		server: &http.Server{Handler: l.Handler(), ReadHeaderTimeout: 10 * time.Second},
	}
	go func() {
		if err := serving(s.local.server.Serve(listener)); err != nil {
			s.logger.Error("the local wallet ended", "error", err.Error())
		}
	}()
	s.logger.Warn("payments come from a local wallet, which moves no money", "file", c.File, "addr", listener.Addr().String())
	return "http://" + listener.Addr().String(), keys, nil
}

// close ends the local wallet's server before its file.
func (w *localWallet) close() error { return errors.Join(w.server.Close(), w.ledger.Close()) }

// paidFetch is l402.fetch; nil when there is no wallet.
func (s *service) paidFetch(guard egress.GuardConfig) (*l402.Tool, error) {
	w, err := s.wallet()
	if err != nil || w == nil {
		return nil, err
	}
	c := s.c
	guard.Allow, guard.Deny, guard.MaxBytes, guard.Timeout = c.Wallet.Allow, c.Wallet.Deny, c.Tools.HTTPMaxBytes, c.Tools.HTTPTimeout
	t, err := l402.New(l402.Config{
		Guard: guard, Wallet: w, Post: c.Wallet.Post, PayTimeout: c.Wallet.Timeout, FeeSats: c.Wallet.FeeSats, FeePPM: c.Wallet.FeePPM,
		MaxText: c.Tools.HTTPMaxText,
	})
	if err != nil {
		return nil, fmt.Errorf("RUNTIME_L402_: %w", err)
	}
	return t, nil
}

// ofDev gives a development process with a database of its own a wallet beside it.
func (c *walletConfig) ofDev(dir string) {
	if os.Getenv("RUNTIME_WALLET") == "" {
		c.Kind = "local"
	}
	if c.Kind == "local" && c.File == "" {
		c.File = filepath.Join(dir, "wallet.ledger")
	}
}
