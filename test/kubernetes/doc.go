// Package kubernetes is a module of its own that says which Kubernetes, etcd
// and cluster DNS the test rig runs: its go.mod pins them as tools, and
// test/lab builds them. Kubernetes as a dependency needs each of its staging
// modules replaced, which must not reach the product's own go.mod.
package kubernetes
