{{- define "podkey.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "podkey.webhook.match" -}}
app.kubernetes.io/name: podkey
app.kubernetes.io/component: webhook
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "podkey.labels" -}}
app.kubernetes.io/name: podkey
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "podkey.webhook.annotations" -}}
{{- if and .Values.webhook.certificates.injectCAFrom (not .Values.webhook.certificates.existingSecret) }}
{{- fail "webhook.certificates.injectCAFrom needs webhook.certificates.existingSecret: otherwise cert-manager and podkey would overwrite each other's CA" }}
{{- end -}}
{{- $all := merge (dict) .Values.webhook.annotations -}}
{{- with .Values.webhook.certificates.injectCAFrom -}}
{{- $_ := set $all "cert-manager.io/inject-ca-from" . -}}
{{- end -}}
{{- with $all }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end -}}
{{- end -}}

{{- /* Namespaces that no webhook is asked for: the names, and Podkey's own, on which its start would otherwise depend. */ -}}
{{- define "podkey.webhook.namespaces" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      {{- range uniq (append .Values.webhook.exemptNamespaces .Release.Namespace) }}
      - {{ . | quote }}
      {{- end }}
{{- end -}}
