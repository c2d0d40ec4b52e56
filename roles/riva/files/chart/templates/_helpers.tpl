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

{{- define "riva.serviceAccountName" -}}
{{- .Values.serviceAccountName | default (ternary (include "riva.fullname" .) "" (ne .Values.openshift.scc "")) -}}
{{- end -}}

{{- define "riva.isNim" -}}
{{- if eq .Values.engine "nim" }}true{{ end -}}
{{- end -}}

{{- define "riva.httpPort" -}}
{{- if include "riva.isNim" . }}{{ .Values.nim.httpPort }}{{ else }}{{ .Values.ports.http }}{{ end -}}
{{- end -}}

{{- define "riva.metricsPort" -}}
{{- if include "riva.isNim" . }}{{ .Values.nim.metricsPort }}{{ else }}{{ .Values.ports.metrics }}{{ end -}}
{{- end -}}

{{- define "riva.metricsPath" -}}
{{- if include "riva.isNim" . }}{{ .Values.nim.metricsPath }}{{ else }}{{ .Values.serviceMonitor.path }}{{ end -}}
{{- end -}}

{{- define "riva.modelsPath" -}}
{{- if include "riva.isNim" . }}{{ .Values.nim.cachePath }}{{ else }}/data{{ end -}}
{{- end -}}

{{- /* The image; a NIM's version is its own, never the chart's. */}}
{{- define "riva.image" -}}
{{- if and (include "riva.isNim" .) (not .Values.image.tag) -}}
{{- fail "engine is nim: set image.repository to the container id and image.tag to its version" -}}
{{- end -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- /* Environment of the server, as a YAML list. */}}
{{- define "riva.serverEnv" -}}
{{- if include "riva.isNim" . }}
- name: NIM_HTTP_API_PORT
  value: {{ .Values.nim.httpPort | toString | quote }}
- name: NIM_GRPC_API_PORT
  value: {{ .Values.ports.grpc | toString | quote }}
- name: NIM_CACHE_PATH
  value: {{ .Values.nim.cachePath }}
{{- with .Values.nim.tagsSelector }}
- name: NIM_TAGS_SELECTOR
  value: {{ . | quote }}
{{- end }}
{{- if .Values.nim.offline }}
- name: NIM_DISABLE_MODEL_DOWNLOAD
  value: "true"
{{- else }}
- name: NGC_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.nim.apiKeySecret }}
      key: apikey
{{- end }}
{{- if .Values.nim.ssl.secretName }}
- name: NIM_SSL_MODE
  value: TLS
- name: NIM_SSL_CERT_PATH
  value: /opt/nim/ssl/tls.crt
- name: NIM_SSL_KEY_PATH
  value: /opt/nim/ssl/tls.key
{{- end }}
{{- else }}
- name: TRTIS_MODEL_STORE
  value: /data/models
{{- end }}
{{- with .Values.env }}
{{ include "riva.envMap" . | trim }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What a pod may be placed on: as given, and for a NIM no GPU that is too old. */}}
{{- define "riva.affinity" -}}
{{- $affinity := deepCopy (.Values.affinity | default dict) -}}
{{- if and (include "riva.isNim" .) (gt (int .Values.nim.minComputeMajor) 0) -}}
{{- $young := dict "key" "nvidia.com/gpu.compute.major" "operator" "Gt" "values" (list (sub (int .Values.nim.minComputeMajor) 1 | toString)) -}}
{{- $node := $affinity.nodeAffinity | default dict -}}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict -}}
{{- $terms := list -}}
{{- range $term := $required.nodeSelectorTerms | default (list dict) -}}
{{- $terms = append $terms (merge (dict "matchExpressions" (append ($term.matchExpressions | default list) $young)) $term) -}}
{{- end -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (merge (dict "nodeSelectorTerms" $terms) $required) -}}
{{- $_ := set $affinity "nodeAffinity" $node -}}
{{- end -}}
{{- with $affinity }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- /* Whether the server serves. The SDK answers over grpc.health.v1, a NIM over HTTP. */}}
{{- define "riva.readyProbe" -}}
{{- if include "riva.isNim" . -}}
httpGet:
  path: {{ .Values.nim.readyPath }}
  port: http
  {{- if .Values.nim.ssl.secretName }}
  scheme: HTTPS
  {{- end }}
{{- else -}}
grpc:
  port: {{ .Values.ports.grpc }}
  service: {{ .Values.probes.grpcService | quote }}
{{- end -}}
{{- end -}}

{{- /* Of each pod; what the user sets wins, key by key. */}}
{{- define "riva.podSecurity" -}}
{{- $security := dict "seccompProfile" (dict "type" "RuntimeDefault") }}
{{- if include "riva.isNim" . }}
{{- /* The cache belongs to the user that the server runs as; of a folder of the node an init container sees to that. */}}
{{- $security = merge $security (dict "runAsUser" .Values.nim.user "runAsGroup" .Values.nim.user "fsGroup" .Values.nim.user "fsGroupChangePolicy" "OnRootMismatch") }}
{{- end }}
{{- toYaml (mergeOverwrite $security (deepCopy (.Values.podSecurityContext | default dict))) }}
{{- end -}}

{{- /* Of the server and of what builds its models. The SDK's image runs as root, and writes to folders of other users. */}}
{{- define "riva.serverSecurity" -}}
{{- $security := dict "allowPrivilegeEscalation" false "capabilities" (dict "drop" (list "ALL")) }}
{{- if include "riva.isNim" . }}
{{- $security = merge $security (dict "runAsNonRoot" true) }}
{{- else }}
{{- $security = mergeOverwrite $security (dict "capabilities" (dict "add" (list "CHOWN" "DAC_OVERRIDE" "FOWNER" "SETGID" "SETUID"))) }}
{{- end }}
{{- toYaml (mergeOverwrite $security (deepCopy (.Values.securityContext | default dict))) }}
{{- end -}}
