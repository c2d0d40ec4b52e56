{{- define "stack.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- /* Upstream cuts full names to 26 characters, so that the longest name made from one still fits. */}}
{{- define "stack.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $own := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $own | trunc 26 | trimSuffix "-" -}}
{{- end }}

{{- define "stack.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end }}

{{- define "stack.labels" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.Version | quote }}
app.kubernetes.io/part-of: {{ include "stack.name" . }}
chart: {{ .Chart.Name }}-{{ .Chart.Version }}
release: {{ .Release.Name | quote }}
heritage: {{ .Release.Service | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "stack.operator.labels" -}}
{{ include "stack.labels" . }}
app: {{ include "stack.name" . }}-operator
app.kubernetes.io/name: {{ include "stack.name" . }}-prometheus-operator
app.kubernetes.io/component: prometheus-operator
{{- end }}

{{- define "stack.prometheus.labels" -}}
{{ include "stack.labels" . }}
app: {{ include "stack.name" . }}-prometheus
{{- end }}

{{- define "stack.operator.fullname" -}}
{{ include "stack.fullname" . }}-operator
{{- end }}

{{- define "stack.prometheus.fullname" -}}
{{ include "stack.fullname" . }}-prometheus
{{- end }}

{{- define "stack.operator.serviceAccount" -}}
{{- $own := .Values.prometheusOperator.serviceAccount.create | ternary (include "stack.operator.fullname" .) "default" -}}
{{- .Values.prometheusOperator.serviceAccount.name | default $own -}}
{{- end }}

{{- define "stack.prometheus.serviceAccount" -}}
{{- $own := .Values.prometheus.serviceAccount.create | ternary (include "stack.prometheus.fullname" .) "default" -}}
{{- .Values.prometheus.serviceAccount.name | default $own -}}
{{- end }}

{{- /* Takes (list root image-map default-tag). */}}
{{- define "stack.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $root.Values.global.imageRegistry | default $image.registry -}}
{{- printf "%s/%s:%s" $registry $image.repository ($image.tag | default (index . 2)) -}}
{{- end }}

{{- /* Takes (list root kind): the selector for one kind of monitor, as upstream chooses it. */}}
{{- define "stack.selector" -}}
{{- $root := index . 0 -}}
{{- $kind := index . 1 -}}
{{- $spec := $root.Values.prometheus.prometheusSpec -}}
{{- $given := get $spec (printf "%sSelector" $kind) -}}
{{- if $given -}}
{{- toYaml $given -}}
{{- else if get $spec (printf "%sSelectorNilUsesHelmValues" $kind) -}}
matchLabels:
  release: {{ $root.Release.Name | quote }}
{{- else -}}
{}
{{- end }}
{{- end }}
