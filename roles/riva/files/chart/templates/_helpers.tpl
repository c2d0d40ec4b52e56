{{- define "riva.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "riva.selectorLabels" -}}
app.kubernetes.io/name: riva
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "riva.labels" -}}
{{ include "riva.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/component: speech-server
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "riva.envMap" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- /* Milliseconds as a Kubernetes quantity: 10 is "10", 1.5 is "1500m". */}}
{{- define "riva.milliseconds" -}}
{{- $milli := int64 (round (mulf . 1000) 0) -}}
{{- if mod $milli 1000 }}{{ printf "%dm" $milli }}{{ else }}{{ div $milli 1000 }}{{ end -}}
{{- end -}}
