{{/*
What the objects are called: the release, behind "lsa" where it does not begin so. That makes it the name of a Service,
which begins with a letter and has no dots, and leaves room for "-coordinator".
*/}}
{{- define "lsa.name" -}}
{{- $name := .Release.Name | replace "." "-" -}}
{{- if not (hasPrefix "lsa" $name) }}{{ $name = printf "lsa-%s" $name }}{{ end -}}
{{- $name | trunc 51 | trimSuffix "-" -}}
{{- end -}}

{{- define "lsa.bucket" -}}
{{- required "bucket.url is not set: name the bucket, for example --set bucket.url=s3://bucket/prefix" .Values.bucket.url -}}
{{- end -}}

{{/*
The templates below take a dict of root (the usual context) and component ("coordinator" or "worker").
*/}}

{{- define "lsa.selectorLabels" -}}
app.kubernetes.io/name: lsa
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "lsa.labels" -}}
{{ include "lsa.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "lsa.image" -}}
{{- $image := get .root.Values.image .component -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "lsa.serviceAccountName" -}}
{{- $account := (get .root.Values .component).serviceAccount -}}
{{- if $account.create -}}
{{ $account.name | default (printf "%s-%s" (include "lsa.name" .root) .component) }}
{{- else -}}
{{ $account.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* Metadata of a pod. Without the chart's version, with which all pods would be replaced. */}}
{{- define "lsa.podMetadata" -}}
{{- $own := get .root.Values .component -}}
labels:
  {{- include "lsa.selectorLabels" . | nindent 2 }}
  {{- with $own.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $own.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Of a pod's spec, what both components share: who it is, and where it may run. */}}
{{- define "lsa.podSettings" -}}
{{- $own := get .root.Values .component -}}
serviceAccountName: {{ include "lsa.serviceAccountName" . }}
# Nothing here talks to Kubernetes. IRSA and Azure's workload identity mount a token of their own, GKE's asks the
# metadata server: none of them needs this one.
automountServiceAccountToken: false
# Variables named after Services could be taken for settings, which begin with LSA_ too.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  # For volumes that are not made for this user: claims, projected tokens.
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Of a container, what lets it do its work and nothing else. */}}
{{- define "lsa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Environment: who asks the bucket and the hub, and where files are kept. */}}
{{- define "lsa.environment" -}}
{{- $values := .root.Values -}}
{{- with $values.bucket.credentialsSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
env:
  # Both the files of a bucket and those of a hub are kept below it.
  - {name: XDG_CACHE_HOME, value: /cache}
  {{- if $values.bucket.caConfigMap.name }}
  - {name: AWS_CA_BUNDLE, value: {{ printf "/etc/lsa/ca/%s" $values.bucket.caConfigMap.key | quote }}}
  {{- end }}
  {{- if $values.hub.tokenSecret.name }}
  - name: HF_TOKEN
    valueFrom:
      secretKeyRef: {name: {{ $values.hub.tokenSecret.name }}, key: {{ $values.hub.tokenSecret.key }}}
  {{- end }}
  {{- if $values.hub.offline }}
  - {name: HF_HUB_OFFLINE, value: "1"}
  {{- end }}
  {{- with (get $values .component).extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
