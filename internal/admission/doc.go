// Package admission decides what a pod gets when it asks for a workload
// identity, and what its author should be told: the rules behind the webhooks
// /mutate-v1-pod and /advise-v1-pod, from the bytes of an AdmissionReview to
// the bytes of the answer.
//
// It owns the annotations of azure.workload.identity, the token volume and its
// layouts, the injected containers and the texts of refusals and warnings. It
// reaches nothing: service accounts come from a function of the caller's.
//
// It guarantees, for any pod: the patch adds and never removes; it replaces
// nothing but volumes and mounts that bear our own names; and it is a fixed
// point, so that calling again with the patched pod, even renamed, yields no
// patch. Fields that this package does not know are not looked at and survive.
package admission
