// Package workload starts a person's program as if it ran in Azure or in a
// pod: `podkey exec` and `podkey run`.
//
// It owns the child process's side of both commands: the environment and the
// files that make unmodified clients reach and trust Podkey ([ExecEnv]), the
// variables that the admission webhook would inject ([WorkloadEnv]), the
// federated token file that the kubelet would keep fresh ([TokenFile]), and
// the process itself ([Run]). It knows no server: the caller supplies the
// proxy's address, the certificates and a function that fetches tokens.
//
// It guarantees that what it writes can be read by this user alone, that a
// reader of the token file sees a whole token at any moment, that no
// credential for the real Azure is passed on to the child by a variable that
// an Azure client reads, and that the child gets each signal once.
//
// docs/exec-and-run.md tells users the same.
package workload
