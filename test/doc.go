// Package test proves Podkey with other people's clients: the real Azure SDKs
// against the whole server, processes that are killed, and attacks from
// outside. It is a module of its own and is never imported.
package test
