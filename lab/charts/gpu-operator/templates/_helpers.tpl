{{- define "operator.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/component: gpu-operator
{{- end }}

{{- define "operator.image" -}}
{{- $operator := .Values.operator -}}
{{- printf "%s/%s:%s" $operator.repository $operator.image ($operator.version | default .Chart.AppVersion) -}}
{{- end }}

{{- define "operator.nfdName" -}}
{{- printf "%s-node-feature-discovery" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}
