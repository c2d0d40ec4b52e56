{{- /* A container's share of the pod's GPUs: by the device plugin's resource, or by the pod's claim. root, limits. */}}
{{- define "riva.gpuResources" -}}
{{- $values := .root.Values -}}
{{- if $values.resourceClaim.deviceClassName -}}
claims:
  - name: gpu
{{- with .limits }}
limits:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- else -}}
limits:
  {{- merge (dict $values.gpuResource $values.gpus) .limits | toYaml | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "riva.podClaims" -}}
{{- if .Values.resourceClaim.deviceClassName }}
resourceClaims:
  - name: gpu
    resourceClaimTemplateName: {{ include "riva.fullname" . }}
{{- end -}}
{{- end -}}

{{- /* Fills the store: NGC's models downloaded and built, or built ones copied from a bucket. */}}
{{- define "riva.modelInitContainer" -}}
{{- $s3 := .Values.modelInit.s3 -}}
- name: riva-model-init
  {{- if $s3.path }}
  image: "{{ $s3.image.repository }}:{{ $s3.image.tag }}"
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- /* Without a file of its own; copy, since a store may have models of other services. */}}
  command: [rclone, --config=, --stats=30s, --stats-one-line, --verbose, copy, ":s3:{{ $s3.path }}", /data]
  env:
    - name: RCLONE_S3_PROVIDER
      value: {{ ternary "Other" "AWS" (ne $s3.endpoint "") }}
    {{- with $s3.endpoint }}
    - name: RCLONE_S3_ENDPOINT
      value: {{ . }}
    {{- end }}
    {{- with $s3.region }}
    - name: RCLONE_S3_REGION
      value: {{ . }}
    {{- end }}
    {{- with $s3.secretName }}
    - name: RCLONE_S3_ACCESS_KEY_ID
      valueFrom:
        secretKeyRef:
          name: {{ . }}
          key: access_key_id
    - name: RCLONE_S3_SECRET_ACCESS_KEY
      valueFrom:
        secretKeyRef:
          name: {{ . }}
          key: secret_access_key
    {{- end }}
  {{- else }}
  image: "{{ .Values.modelInit.image.repository }}:{{ .Values.modelInit.image.tag | default (printf "%s-servicemaker" .Chart.AppVersion) }}"
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    {{- toYaml .Values.modelInit.command | nindent 4 }}
  {{- with .Values.modelInit.models }}
  args:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  env:
    - name: NGC_CLI_API_KEY
      valueFrom:
        secretKeyRef:
          name: {{ .Values.modelInit.apiKeySecret }}
          key: apikey
    - name: MODEL_DEPLOY_KEY
      valueFrom:
        secretKeyRef:
          name: {{ .Values.modelInit.deployKeySecret }}
          key: key
  {{- end }}
    {{- with .Values.modelInit.env }}
    {{- include "riva.envMap" . | trim | nindent 4 }}
    {{- end }}
  securityContext:
    {{- include "riva.serverSecurity" . | nindent 4 }}
  {{- if not $s3.path }}
  resources:
    {{- include "riva.gpuResources" (dict "root" . "limits" dict) | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: models
      mountPath: /data
{{- end -}}

{{- /* The port of what models are fetched from. */}}
{{- define "riva.fetchPort" -}}
{{- $endpoint := ternary .Values.modelInit.s3.endpoint "" (ne .Values.modelInit.s3.path "") -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $endpoint) | default (ternary "80" "443" (hasPrefix "http://" $endpoint)) -}}
{{- end -}}
