{{- define "adapter.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "adapter.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $own := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $own | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "adapter.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end }}

{{- define "adapter.selector" -}}
app.kubernetes.io/name: {{ include "adapter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "adapter.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/component: metrics
app.kubernetes.io/part-of: {{ include "adapter.name" . }}
{{ include "adapter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- with .Values.customLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels and annotations of every resource of this chart. */}}
{{- define "adapter.metadata" -}}
labels:
  {{- include "adapter.labels" . | nindent 2 }}
{{- with .Values.customAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "adapter.serviceAccount" -}}
{{- $own := .Values.serviceAccount.create | ternary (include "adapter.fullname" .) "default" -}}
{{- .Values.serviceAccount.name | default $own -}}
{{- end }}

{{- /* The groups that are served: a group is registered only if a rule feeds it. */}}
{{- define "adapter.groups" -}}
{{- $groups := list -}}
{{- if .Values.rules.custom }}{{ $groups = append $groups "custom.metrics.k8s.io" }}{{ end -}}
{{- if .Values.rules.external }}{{ $groups = append $groups "external.metrics.k8s.io" }}{{ end -}}
{{- if .Values.rules.resource }}{{ $groups = append $groups "metrics.k8s.io" }}{{ end -}}
{{- join " " $groups -}}
{{- end }}
