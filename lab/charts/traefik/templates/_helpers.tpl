{{- define "proxy.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "proxy.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $own := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $own | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "proxy.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end }}

{{- define "proxy.clusterName" -}}
{{- printf "%s-%s" (include "proxy.fullname" .) (include "proxy.namespace" .) | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "proxy.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "proxy.fullname" .) -}}
{{- end }}

{{- define "proxy.selector" -}}
{{- $instance := printf "%s-%s" .Release.Name (include "proxy.namespace" .) -}}
app.kubernetes.io/name: {{ include "proxy.name" . }}
app.kubernetes.io/instance: {{ .Values.instanceLabelOverride | default $instance | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "proxy.labels" -}}
{{ include "proxy.selector" . }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Kubernetes allows 15 characters in a port's name. */}}
{{- define "proxy.portName" -}}
{{- . | lower | trunc 15 | trimSuffix "-" -}}
{{- end }}

{{- /* Takes (list prefix value): one argument for each value that is set in a map, however deep. */}}
{{- define "proxy.arguments" -}}
{{- $prefix := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- range $key, $below := $value -}}
{{- include "proxy.arguments" (list (printf "%s.%s" $prefix $key) $below) -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- with $value }}
- {{ printf "--%s=%s" $prefix (join "," .) | quote }}
{{- end -}}
{{- else if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
- {{ printf "--%s=%v" $prefix (kindIs "float64" $value | ternary (toJson $value) $value) | quote }}
{{- end -}}
{{- end }}

{{- /* Nine tenths of a memory limit in Mi or Gi, for Go's own collector. */}}
{{- define "proxy.memoryLimit" -}}
{{- if hasSuffix "Gi" . -}}
{{- printf "%dMiB" (div (mul (trimSuffix "Gi" . | int) 1024 9) 10) -}}
{{- else if hasSuffix "Mi" . -}}
{{- printf "%dMiB" (div (mul (trimSuffix "Mi" . | int) 9) 10) -}}
{{- else -}}
{{- fail (printf "resources.limits.memory is %s; write it in Mi or Gi" .) -}}
{{- end -}}
{{- end }}
